"""Sections made of ``analysis.json``, which ``recbole-hnlm analyse`` wrote; nothing is computed here.

The file holds the analysis of one run, or ``runs``, a list of them. What a version of it does not hold is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.report.figures import Curve, curves, grouped
from recbole_hnlm.experiments.report.text import number
from recbole_hnlm.experiments.report.view import Cell, Column, Note, Plots, Section, Table
from recbole_hnlm.experiments.tables import metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.experiments.report.view import Block, Plot

__all__ = ["analysis_sections", "runs_of"]

_KINDS = (
    ("users", "By activity of users", "Users by their number of training interactions."),
    (
        "items",
        "By popularity of items",
        "What the hits on items of each group add: head, mid and tail by training interactions.",
    ),
)


def runs_of(analysis: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the analysed runs of a file."""
    runs = analysis.get("runs")
    return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else [analysis]


def analysis_sections(
    analysis: Mapping[str, Any] | None, command: str, metric: str, colours: Mapping[str, int] | None = None
) -> list[Section]:
    """Return the sections on groups, hardness and lists, or one that says how to make them.

    Args:
        analysis: content of the file; None where there is none.
        command: that makes it.
        metric: which metric is drawn, such as ``ndcg@10``.
        colours: place of each method's colour; None for one run.
    """
    if analysis is None:
        note = Note(
            "Groups of users and items, hardness and diversity of the lists were not analysed. Make them, then this page:",
            code=command,
        )
        return [Section("groups", "Groups and lists", "", [note])]
    runs = runs_of(analysis)
    places = colours or {str(run.get("label")): place for place, run in enumerate(runs)}
    first: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        first.setdefault(str(run.get("label")), run)
    blocks: list[Block] = []
    plots = [plot for kind in _KINDS if (plot := _groups(first, kind, metric, places)) is not None]
    plots += [plot for plot in [_hardness(runs, places)] if plot is not None]
    if plots:
        blocks.append(Plots(plots))
    blocks += [table for kind, title, _ in _KINDS if (table := _group_table(first, kind, title, metric)) is not None]
    blocks += _beyond(first)
    reasons = dict.fromkeys(str(reason) for run in runs for reason in (run.get("missing") or {}).values())
    blocks += [Note(reason) for reason in reasons]
    lead = "Values of one seed of each method; whiskers are 95 % bootstrap intervals over users." if plots else ""
    return [Section("groups", "Groups and lists", lead, blocks or [Note("analysis.json holds nothing that can be shown.")])]


def _entries(run: Mapping[str, Any], kind: str) -> Sequence[Mapping[str, Any]]:
    groups = (run.get("groups") or {}).get(kind) or {}
    return groups.get("groups") or ()


def _values(run: Mapping[str, Any], kind: str, metric: str) -> list[tuple[float | None, float | None, float | None]]:
    found = [(entry.get("values") or {}).get(metric) or {} for entry in _entries(run, kind)]
    return [(each.get("value"), each.get("low"), each.get("high")) for each in found]


def _groups(
    runs: Mapping[str, Mapping[str, Any]], kind: tuple[str, str, str], metric: str, places: Mapping[str, int]
) -> Plot | None:
    name, title, caption = kind
    known = {label: run for label, run in runs.items() if any(value[0] is not None for value in _values(run, name, metric))}
    if not known:
        return None
    names = [f"{entry['name']}\n{100 * entry['weight']:.0f} %" for entry in _entries(next(iter(known.values())), name)]
    lines = [(label, places.get(label, 0), _values(run, name, metric)) for label, run in known.items()]
    what = "users" if name == "users" else "what was to be found"
    return grouped(
        f"groups-{name}", title, metric_name(metric), names, lines, f"{caption} Below each group: its share of {what}."
    )


def _group_table(runs: Mapping[str, Mapping[str, Any]], kind: str, title: str, metric: str) -> Table | None:
    entries = next((found for run in runs.values() if (found := _entries(run, kind))), None)
    if entries is None:
        return None
    columns = [
        Column("group"),
        Column("members", is_number=True),
        Column("weight", is_number=True),
        *(Column(label, is_number=True) for label in runs),
    ]
    rows = []
    for place, entry in enumerate(entries):
        values = [each[place][0] if place < len(each := _values(run, kind, metric)) else None for run in runs.values()]
        best = max((value for value in values if value is not None), default=None)
        cells = [
            Cell(number(value), sort=value, is_best=len(runs) > 1 and value is not None and value == best) for value in values
        ]
        weight = float(entry["weight"])
        rows.append(
            [
                Cell(str(entry["name"])),
                Cell(f"{entry['size']:,}", sort=float(entry["size"])),
                Cell(f"{100 * weight:.1f} %", sort=weight),
                *cells,
            ]
        )
    return Table(f"{title}, {metric_name(metric)}", columns, rows)


def _hardness(runs: Sequence[Mapping[str, Any]], places: Mapping[str, int]) -> Plot | None:
    series: dict[str, list[list[tuple[float, float]]]] = {}
    for run in runs:
        values = (run.get("training") or {}).get("hardness")
        if isinstance(values, dict):
            values = values.get("margin") or values.get("mean")
        if isinstance(values, list):
            points = [(epoch, float(value)) for epoch, value in enumerate(values, start=1) if isinstance(value, (int, float))]
            series.setdefault(str(run.get("label")), []).append(points)
    lines = [Curve(label, seeds) for label, seeds in series.items()]
    caption = "Score of the chosen negative less that of the positive, mean over training triples: the higher, the harder."
    return curves(
        "hardness", "Hardness", "negative minus positive", lines, caption, colours=[places.get(line.name, 0) for line in lines]
    )


def _beyond(runs: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    names = list(dict.fromkeys(name for run in runs.values() for name in run.get("beyond_accuracy") or {}))
    if not names:
        return []
    rows = []
    for name in names:
        values = [(run.get("beyond_accuracy") or {}).get(name) for run in runs.values()]
        rows.append(
            [Cell(metric_name(name)), *(Cell("n/a" if value is None else f"{value:.4g}", sort=value) for value in values)]
        )
    columns = [Column("measure"), *(Column(label, is_number=True) for label in runs)]
    legend = (
        "Coverage: share of the items that are recommended to anybody. Gini: 0 where all items are recommended equally often, "
        "1 where one alone is."
    )
    return [Table("The lists beyond accuracy", columns, rows, legend=[legend])]
