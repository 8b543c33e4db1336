"""What the pictures of an analysis share: panels side by side, one colour a method, a legend below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COLOURS", "Methods", "caption", "finished", "panels", "with_section"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's, which colour-blind readers tell apart."""

Methods = dict[str, "list[Mapping[str, Any]]"]
"""Analyses by the name of their method."""


def with_section(methods: Methods, section: str) -> Methods:
    """Keep the analyses that have a section, and the methods that have such analyses."""
    kept = {label: [run for run in runs if run[section]] for label, runs in methods.items()}
    return {label: runs for label, runs in kept.items() if runs}


def panels(count: int, height: float = 3.4, width: float = 4.2) -> tuple[Any, list[Any]]:
    """Return a figure with panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- only pictures need it
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(0.6 + width * count, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def caption(methods: Methods, more: str) -> str:
    """Return the line above the panels: dataset, the method where there is one, and how to read the picture."""
    label, runs = next(iter(methods.items()))
    name = f", {label}" if len(methods) == 1 else ""
    return f"{runs[0]['dataset']}{name} ({more})" if more else f"{runs[0]['dataset']}{name}"


def finished(figure: Any, axes: Sequence[Any], title: str, lines: int) -> Any:
    """Put the title above, a grid behind, and a legend of the first panel below where it names several."""
    figure.suptitle(title, fontsize="medium")
    for axis in axes:
        axis.grid(visible=True, axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    if lines > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(lines, 3), fontsize="small", frameon=False)
    return figure
