"""Analyses as pictures: one panel a question, one colour a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.experiments.tables import metric_name
from recbole_hnlm.utils.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["draw_pictures"]

# Okabe and Ito's colours, told apart by colour-blind readers; a marker of its own goes with each.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_SIDES = {"users": "users by training interactions", "items": "items by popularity"}


def draw_pictures(analyses: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Draw what one or several analyses of a dataset hold; runs of one method are averaged.

    Returns:
        Names of the files; a picture without data is left out.

    Raises:
        ArtifactError: a picture cannot be written.
    """
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for analysis in analyses:
        methods.setdefault(analysis["label"], []).append(analysis)
    drawn = {"groups.png": _draw_groups(methods)}
    for name, figure in drawn.items():
        if figure is not None:
            with replacing(folder / name) as partial:
                figure.savefig(partial, format="png", dpi=130)
    return [name for name, figure in drawn.items() if figure is not None]


def _figure(columns: int, height: float = 3.4) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- only pictures need it
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(1.0 + 4.2 * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _legend(figure: Any, axis: Any, count: int) -> None:
    if count > 1:
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(count, 3), fontsize="small", frameon=False)


def _draw_groups(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Draw the main metric of each group: its mean over users, and for items its share of what was to be found."""
    with_groups = {label: [each for each in runs if each["groups"]] for label, runs in methods.items()}
    with_groups = {label: runs for label, runs in with_groups.items() if runs}
    if not with_groups:
        return None
    first = next(iter(with_groups.values()))[0]
    figure, axes = _figure(2)
    for axis, (side, title) in zip(axes, _SIDES.items(), strict=True):
        names = list(
            dict.fromkeys(g["name"] for runs in with_groups.values() for r in runs for g in r["groups"][side]["groups"])
        )
        metric = _main_metric(first["groups"][side]["metrics"], "ndcg" if side == "users" else "recall")
        width = 0.8 / len(with_groups)
        for place, (label, runs) in enumerate(with_groups.items()):
            centres = np.arange(len(names)) + (place - (len(with_groups) - 1) / 2) * width
            values, errors = _group_values(runs, side, metric, names)
            axis.bar(
                centres, values, width, yerr=errors, label=label, color=_COLOURS[place % len(_COLOURS)], error_kw={"lw": 1}
            )
        groups = {g["name"]: g for g in first["groups"][side]["groups"]}
        ticks = [f"{name}\n({groups[name]['weight']:.0%})" if name in groups else name for name in names]
        axis.set(title=title, xticks=range(len(names)), xticklabels=ticks, ylabel=metric_name(metric))
        axis.set_xlabel("share of users in brackets" if side == "users" else "share of the relevant items in brackets")
        axis.grid(visible=True, axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    seeds = max(len(runs) for runs in with_groups.values())
    spread = f"means over {seeds} seeds" if seeds > 1 else "whiskers: 95 % bootstrap over users"
    one = f", {next(iter(with_groups))}" if len(with_groups) == 1 else ""
    figure.suptitle(f"{first['dataset']}{one} ({spread})", fontsize="medium")
    _legend(figure, axes[0], len(with_groups))
    return figure


def _group_values(runs: Sequence[Mapping[str, Any]], side: str, metric: str, names: Sequence[str]) -> tuple[list[float], Any]:
    tables = [{g["name"]: g["values"][metric] for g in run["groups"][side]["groups"]} for run in runs]
    rows = [[table[name] for table in tables if name in table and table[name]["value"] is not None] for name in names]
    values = [float(np.mean([found["value"] for found in row])) if row else 0.0 for row in rows]
    if len(runs) > 1 or any(not row or row[0]["low"] is None for row in rows):
        return values, None
    errors = [(row[0]["value"] - row[0]["low"], row[0]["high"] - row[0]["value"]) for row in rows]
    return values, np.maximum(np.array(errors).T, 0.0)


def _main_metric(metrics: Sequence[str], wanted: str) -> str:
    """Return the wanted metric at its last cut-off, or the last of all where the run has none of that name."""
    own = [name for name in metrics if name.partition("@")[0] == wanted]
    return (own or list(metrics))[-1]
