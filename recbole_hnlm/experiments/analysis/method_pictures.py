"""Pictures that compare methods: negatives over epochs, and what the lists are like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.experiments.analysis.panels import COLOURS, caption, finished, panels, with_section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.experiments.analysis.panels import Methods

__all__ = ["draw_beyond", "draw_epochs"]

# Title, axis, and factor of each series.
_SERIES = {
    "false_negative_rates": ("negatives that are held-out positives", "%", 100.0),
    "difference": ("hardness: score of the negative less the positive's", "score", 1.0),
    "gradient_share": ("triples with a gradient of at least .01", "%", 100.0),
}
_LISTS = {
    "itemcoverage": ("item coverage", "share of the items"),
    "giniindex": ("Gini index", "0: all items alike, 1: one item"),
    "averagepopularity": ("average popularity", "training interactions"),
    "novelty": ("novelty", "bits"),
}


def draw_epochs(methods: Methods) -> Any | None:
    """Draw each recorded series over epochs, averaged over the runs that reached one; None where nothing was recorded."""
    curves = {name: {label: _curve(runs, name) for label, runs in methods.items()} for name in _SERIES}
    shown = {name: found for name, found in curves.items() if any(len(curve) for curve in found.values())}
    if not shown:
        return None
    figure, axes = panels(len(shown))
    for axis, (name, found) in zip(axes, shown.items(), strict=True):
        title, unit, factor = _SERIES[name]
        for place, (label, curve) in enumerate(found.items()):
            axis.plot(range(len(curve)), factor * curve, color=COLOURS[place % len(COLOURS)], marker=".", ms=4, label=label)
        axis.set_title(title, fontsize="medium")
        axis.set(xlabel="epoch", ylabel=unit)
        if unit == "%":
            axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
        axis.xaxis.get_major_locator().set_params(integer=True)
    seeds = max(len(runs) for runs in methods.values())
    return finished(figure, axes, caption(methods, f"means over {seeds} seeds" if seeds > 1 else ""), len(methods))


def _curve(runs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    training = [run["training"] for run in runs]
    series = [each.get(name) or (each.get("hardness") or {}).get(name) or [] for each in training]
    known = [[np.nan if value is None else value for value in values] for values in series]
    longest = max((len(values) for values in known), default=0)
    table = np.array([values + [np.nan] * (longest - len(values)) for values in known], dtype=np.float64)
    if np.isnan(table).all():
        return np.empty(0)
    counts = (~np.isnan(table)).sum(axis=0)
    return np.where(counts > 0, np.nansum(table, axis=0) / np.maximum(counts, 1), np.nan)


def draw_beyond(methods: Methods) -> Any | None:
    """Draw coverage, Gini index, popularity and novelty of the lists at the longest cut-off; None without lists."""
    methods = with_section(methods, "beyond_accuracy")
    if not methods:
        return None
    labels = list(methods)
    figure, axes = panels(len(_LISTS), 1.5 + 0.42 * len(labels), 3.0)
    cuts = [int(name.partition("@")[2]) for name in next(iter(methods.values()))[0]["beyond_accuracy"]]
    for axis, (name, (title, unit)) in zip(axes, _LISTS.items(), strict=True):
        values = [[run["beyond_accuracy"][f"{name}@{max(cuts)}"] for run in methods[label]] for label in labels]
        means = [float(np.mean(each)) for each in values]
        colours = [COLOURS[place % len(COLOURS)] for place in range(len(labels))]
        axis.barh(range(len(labels)), means, 0.6, color=colours)
        for place, mean in enumerate(means):
            axis.text(mean, place, f" {mean:.3g}", va="center", fontsize="small")
        axis.set_title(f"{title} @{max(cuts)}", fontsize="medium")
        axis.set(xlabel=unit, yticks=range(len(labels)), xlim=(0, 1.25 * max([*means, 1e-9])), ylim=(len(labels) - 0.4, -0.6))
        axis.set_yticklabels(labels if axis is axes[0] else [])
        axis.locator_params(axis="x", nbins=4)
    seeds = max(len(runs) for runs in methods.values())
    drawn = finished(figure, axes, caption(methods, f"means over {seeds} seeds" if seeds > 1 else ""), 1)
    for axis in axes:
        axis.grid(visible=False, axis="y")
    return drawn
