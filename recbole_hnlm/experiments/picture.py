"""The comparison as a picture: one panel per metric, one bar per method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.experiments.tables import metric_name
from recbole_hnlm.utils.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from recbole_hnlm.experiments.methods import Role
    from recbole_hnlm.experiments.summary import Table

__all__ = ["draw_table"]

_COLOURS: dict[Role, tuple[str, str]] = {
    "baseline": ("#8da0b8", "without texts or LLM"),
    "rival": ("#5b9a68", "with texts"),
    "hnlm": ("#d1662f", "HNLM"),
}


def draw_table(table: Table, path: Path) -> None:
    """Draw mean and standard deviation over seeds of every method.

    Raises:
        ArtifactError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- only this picture needs it
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    count, labels = len(table.rows), [row.label for row in table.rows[table.metrics[0]]]
    figure = Figure(figsize=(2.4 + 3.4 * count, 1.5 + 0.34 * len(labels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axis, (metric, rows) in zip(axes, table.rows.items(), strict=True):
        means = [row.mean for row in rows]
        errors = [row.std or 0.0 for row in rows]
        axis.barh(
            range(len(rows)),
            means,
            xerr=errors,
            color=[_COLOURS[row.role][0] for row in rows],
            error_kw={"capsize": 3, "elinewidth": 1},
        )
        widest = max(mean + error for mean, error in zip(means, errors, strict=True)) or 1.0
        for place, row in enumerate(rows):
            text = f"{row.mean:.4f}"
            x = row.mean + (row.std or 0.0) + 0.015 * widest
            axis.text(x, place, text, va="center", fontsize=8, weight="bold" if row.is_best else "normal")
        axis.set(xlim=(0, 1.22 * widest), xlabel=metric_name(metric), yticks=range(len(rows)), yticklabels=labels)
        axis.grid(visible=True, axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    seeds = max(len(row.seeds) for row in table.rows[table.metrics[0]])
    spread = "bars: mean, whiskers: standard deviation" if seeds > 1 else "no whiskers: one seed"
    figure.suptitle(f"{table.dataset}, {seeds} seed{'s' if seeds > 1 else ''} ({spread})", fontsize="medium")
    present = {row.role for row in table.rows[table.metrics[0]]}
    if len(present) > 1:
        handles = [Patch(color=colour, label=text) for role, (colour, text) in _COLOURS.items() if role in present]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
