"""Groups of users and items as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.experiments.analysis.panels import COLOURS, caption, finished, panels, with_section
from recbole_hnlm.experiments.tables import metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.experiments.analysis.panels import Methods

__all__ = ["draw_groups"]

_SIDES = {
    "users": ("users by training interactions", "share of users in brackets", "ndcg"),
    "items": ("items by popularity", "share of the relevant items in brackets", "recall"),
}


def draw_groups(methods: Methods) -> Any | None:
    """Draw NDCG by groups of users and Recall by groups of items, at the longest cut-off; None without groups."""
    methods = with_section(methods, "groups")
    if not methods:
        return None
    first = next(iter(methods.values()))[0]
    figure, axes = panels(2)
    for axis, (side, (title, below, wanted)) in zip(axes, _SIDES.items(), strict=True):
        found = [group for runs in methods.values() for run in runs for group in run["groups"][side]["groups"]]
        weights = {group["name"]: group["weight"] for group in reversed(found)}
        names = list(dict.fromkeys(group["name"] for group in sorted(found, key=_order(side))))
        metric = _main_metric(first["groups"][side]["metrics"], wanted)
        width = 0.8 / len(methods)
        for place, (label, runs) in enumerate(methods.items()):
            centres = np.arange(len(names)) + (place - (len(methods) - 1) / 2) * width
            values, errors = _values(runs, side, metric, names)
            colour = COLOURS[place % len(COLOURS)]
            axis.bar(centres, values, width, yerr=errors, label=label, color=colour, error_kw={"lw": 1})
        ticks = [f"{name}\n({weights[name]:.0%})" for name in names]
        axis.set_title(title, fontsize="medium")
        axis.set(xticks=range(len(names)), xticklabels=ticks, ylabel=metric_name(metric), xlabel=below)
    seeds = max(len(runs) for runs in methods.values())
    spread = f"means over {seeds} seeds" if seeds > 1 else "whiskers: 95 % bootstrap over users"
    return finished(figure, axes, caption(methods, spread), len(methods))


def _order(side: str) -> Any:
    return (lambda group: group["low"]) if side == "users" else (lambda group: ("head", "mid", "tail").index(group["name"]))


def _values(runs: Sequence[Mapping[str, Any]], side: str, metric: str, names: Sequence[str]) -> tuple[list[float], Any]:
    tables = [{group["name"]: group["values"][metric] for group in run["groups"][side]["groups"]} for run in runs]
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
