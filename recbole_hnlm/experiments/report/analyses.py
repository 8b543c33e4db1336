"""Sections made of what ``recbole-hnlm analyse`` wrote; here, only means over seeds are taken."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.report.figures import Curve, curves, grouped
from recbole_hnlm.experiments.report.text import number
from recbole_hnlm.experiments.report.view import Cell, Column, Note, Plots, Section, Table
from recbole_hnlm.experiments.tables import metric_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from recbole_hnlm.experiments.report.view import Block, Plot

__all__ = ["analysis_sections"]

Analysis = dict[str, Any]

_SIDES = {
    "users": (
        "By activity of users",
        "Users by their number of training interactions. Below each group: its share of the users.",
    ),
    "items": (
        "By popularity of items",
        "What the hits on items of a group add, per share of what was to be found there. Below each group: that share.",
    ),
}
_TOPS = (10, 50, 100)
_HARDNESS = {
    "difference": (
        "Hardness",
        "negative minus positive",
        "Score of the chosen negative less that of the positive, mean over training triples: the higher, the harder.",
    ),
    "gradient_share": ("Triples that teach", "share of triples", "Training triples with a gradient of at least .01."),
}
_LISTS = {
    "itemcoverage": "share of the items that anybody is recommended",
    "giniindex": "0: all items equally often, 1: one alone",
    "averagepopularity": "training interactions of a recommended item",
    "tailpercentage": "share of places that hold one of the least popular items",
    "shannonentropy": "RecBole's definition, in nats",
    "novelty": "bits of surprise of a recommended item",
}


def analysis_sections(
    analyses: Sequence[Analysis], command: str, metric: str, colours: Mapping[str, int] | None = None
) -> list[Section]:
    """Return the section on groups, hardness and lists; without analyses, it says how to make them.

    Args:
        analyses: contents of ``analysis.json``, of one or several seeds of each method.
        command: that makes them.
        metric: which metric is drawn, such as ``ndcg@10``.
        colours: place of each method's colour; None for one run.
    """
    if not analyses:
        note = "Groups of users and items, and what the lists are like, were not analysed. Make it, then this page again:"
        return [Section("groups", "Groups and lists", "", [Note(note, code=command)])]
    by_label: dict[str, list[Analysis]] = {}
    for analysis in analyses:
        by_label.setdefault(str(analysis.get("label")), []).append(analysis)
    if colours is not None:
        by_label = {label: by_label[label] for label in colours if label in by_label}
    places = colours or dict.fromkeys(by_label, 0)
    drawn = [
        *(_group_plot(by_label, side, metric, places) for side in _SIDES),
        *(_over_epochs(by_label, part, places) for part in _HARDNESS),
    ]
    shifts, nearest = _semantic(by_label, places)
    plots = [*(plot for plot in drawn if plot is not None), *shifts]
    blocks: list[Block] = [Plots(plots)] if plots else []
    blocks += [table for side in _SIDES if (table := _group_table(by_label, side, metric)) is not None]
    blocks += [*nearest, *_lists(by_label)]
    reasons = dict.fromkeys(str(reason) for analysis in analyses for reason in (analysis.get("missing") or {}).values())
    blocks += [Note(f"Not analysed: {reason}") for reason in reasons]
    lead = "Means over seeds; whiskers are 95 % bootstrap intervals over users, averaged over seeds." if plots else ""
    return [Section("groups", "Groups and lists", lead, blocks)]


def _groups(analysis: Analysis, side: str) -> list[dict[str, Any]]:
    return ((analysis.get("groups") or {}).get(side) or {}).get("groups") or []


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _estimates(
    analyses: Sequence[Analysis], side: str, metric: str
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Return value, low and high of each group by its name, each the mean over seeds."""
    found: dict[str, list[dict[str, float | None]]] = {}
    for analysis in analyses:
        for group in _groups(analysis, side):
            found.setdefault(str(group["name"]), []).append((group.get("values") or {}).get(metric) or {})

    def mean(name: str, part: str) -> float | None:
        return _mean(each.get(part) for each in found[name])

    return {name: (mean(name, "value"), mean(name, "low"), mean(name, "high")) for name in found}


def _first_groups(by_label: Mapping[str, Sequence[Analysis]], side: str) -> list[dict[str, Any]]:
    return next((groups for each in by_label.values() for analysis in each if (groups := _groups(analysis, side))), [])


def _group_plot(by_label: Mapping[str, Sequence[Analysis]], side: str, metric: str, places: Mapping[str, int]) -> Plot | None:
    groups = _first_groups(by_label, side)
    lines = []
    for label, analyses in by_label.items():
        estimates = _estimates(analyses, side, metric)
        values = [estimates.get(str(group["name"]), (None, None, None)) for group in groups]
        if any(value[0] is not None for value in values):
            lines.append((label, places[label], values))
    if not lines:
        return None
    title, caption = _SIDES[side]
    names = [f"{group['name']}\n{100 * group['weight']:.0f} %" for group in groups]
    return grouped(f"groups-{side}", title, metric_name(metric), names, lines, caption)


def _group_table(by_label: Mapping[str, Sequence[Analysis]], side: str, metric: str) -> Table | None:
    groups = _first_groups(by_label, side)
    if not groups:
        return None
    estimates = {label: _estimates(analyses, side, metric) for label, analyses in by_label.items()}
    rows = []
    for group in groups:
        name, weight = str(group["name"]), float(group["weight"])
        values = [each.get(name, (None, None, None))[0] for each in estimates.values()]
        best = max((value for value in values if value is not None), default=None)
        cells = [
            Cell(number(value), sort=value, is_best=len(values) > 1 and value is not None and value == best) for value in values
        ]
        size = f"{group['size']:,}"
        rows.append([Cell(name), Cell(size, sort=float(group["size"])), Cell(f"{100 * weight:.1f} %", sort=weight), *cells])
    columns = [Column("group"), Column(side, is_number=True), Column("weight", is_number=True)]
    columns += [Column(label, is_number=True) for label in by_label]
    return Table(f"{_SIDES[side][0]}, {metric_name(metric)}", columns, rows)


def _over_epochs(by_label: Mapping[str, Sequence[Analysis]], part: str, places: Mapping[str, int]) -> Plot | None:
    """Draw a part of ``training.hardness`` over epochs."""
    lines = []
    for label, analyses in by_label.items():
        found = [((analysis.get("training") or {}).get("hardness") or {}).get(part) or [] for analysis in analyses]
        points = [[(float(epoch), value) for epoch, value in enumerate(each, start=1) if value is not None] for each in found]
        lines.append(Curve(label, points))
    title, ylabel, caption = _HARDNESS[part]
    return curves(f"hardness-{part}", title, ylabel, lines, caption, colours=[places[line.name] for line in lines])


def _semantic(by_label: Mapping[str, Sequence[Analysis]], places: Mapping[str, int]) -> tuple[list[Plot], list[Table]]:
    """Show where the LLM's vectors lie, of the first seed of each method that has any."""
    first = {label: analyses[0] for label, analyses in by_label.items()}
    shifts = {
        label: found for label, each in first.items() if (found := (each.get("semantic_shift") or {}).get("distributions"))
    }
    names = list(dict.fromkeys(name for found in shifts.values() for name, each in found.items() if each))
    lines = []
    for label, found in shifts.items():
        described = [found.get(name) or {} for name in names]
        lines.append((label, places[label], [tuple(each.get(part) for part in ("mean", "q05", "q95")) for each in described]))
    caption = "Cosines between hard negatives (z), items and users: means, whiskers from the 5 % to the 95 % quantile."
    shown = [name.replace("_", "\n") for name in names]
    plots = [grouped("shift", "Semantic shift", "cosine", shown, lines, caption, wide=True)] if names else []
    tables = [_nearest_table(label, found) for label, each in first.items() if (found := each.get("semantic_negatives"))]
    return plots, tables


def _nearest_table(label: str, found: Mapping[str, Any]) -> Table:
    entries = {
        **{f"nearest {count}": each for count, each in (found.get("nearest") or {}).items()},
        "random": found.get("random"),
    }
    rows = []
    for name, entry in ((name, entry or {}) for name, entry in entries.items()):
        rank, top = entry.get("model_rank") or {}, entry.get("model_top") or {}
        share = entry.get("held_out_share")
        cells = [Cell("n/a" if share is None else f"{100 * share:.3f} %", sort=share), Cell(number(rank.get("median"), 0))]
        rows.append(
            [Cell(name), *cells, *(Cell("n/a" if (k := top.get(str(at))) is None else f"{100 * k:.2f} %") for at in _TOPS)]
        )
    columns = [Column("real items"), Column("held-out positives", is_number=True), Column("median rank", is_number=True)]
    columns += [Column(f"in the model's first {at}", is_number=True) for at in _TOPS]
    return Table(f"Real items nearest to the LLM's hard negatives, {label}", columns, rows)


def _lists(by_label: Mapping[str, Sequence[Analysis]]) -> list[Block]:
    found = {label: [analysis.get("beyond_accuracy") or {} for analysis in analyses] for label, analyses in by_label.items()}
    names = list(dict.fromkeys(name for some in found.values() for each in some for name in each))
    if not names:
        return []
    rows = []
    for name in names:
        values = [_mean(each.get(name) for each in some) for some in found.values()]
        cells = [Cell("n/a" if value is None else f"{value:.4g}", sort=value) for value in values]
        rows.append([Cell(name), *cells, Cell(_LISTS.get(name.partition("@")[0], ""))])
    columns = [Column("measure"), *(Column(label, is_number=True) for label in found), Column("what it says")]
    return [Table("What the lists are like, beyond being right", columns, rows)]
