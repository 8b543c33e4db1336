"""The page of a search."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.report.figures import scores_by_trial, slices
from recbole_hnlm.experiments.report.parts import config_section, data_blocks, people_section, repeat_section
from recbole_hnlm.experiments.report.text import csv_text, number, plural, seconds_text, signed
from recbole_hnlm.experiments.report.view import Cell, Code, Column, Note, Page, Plots, Section, Table, Tile
from recbole_hnlm.experiments.tables import metric_name
from recbole_hnlm.utils.values import parse_value

if TYPE_CHECKING:
    from recbole_hnlm.experiments.report.inputs import TuningInput
    from recbole_hnlm.experiments.report.samples import Samples
    from recbole_hnlm.experiments.report.view import Block

__all__ = ["tuning_page"]

_SHOWN = 200


def tuning_page(tuning: TuningInput, samples: Samples) -> Page:
    """Return the page of a search."""
    summary = tuning.summary
    metric, best = metric_name(str(summary["metric"]).lower()), summary["best"]
    records = tuning.winner
    keys = [line.split()[0] for line in summary["space"]]
    name = f"{records[0]['model']} on {records[0]['dataset']}" if records else tuning.folder.name
    sections = [
        Section("results", "Results", "", _results(tuning, metric, keys)),
        Section("search", "The search", "", _plots(tuning, metric, keys)),
        Section("trials", "Trials", "", [_trials(tuning, metric, keys)]),
    ]
    if records:
        sections.append(Section("data", "What it was run on", "", data_blocks(records[0], samples)))
        sections.append(people_section(samples))
        sections.append(config_section({str(records[0]["model"]): records[0]["config"]}))
    command = f"recbole-hnlm run --config_files={tuning.folder.name}/best.yaml"
    sections.append(repeat_section(command if best else "", records, tuning.energy, "No trial has finished."))
    return Page(
        title=f"Search for {name}",
        kicker=f"Search · {name} · {summary['algo']}, {plural(len(keys), 'key')}",
        verdict=_verdict(tuning, metric),
        tone="win" if best else "plain",
        tiles=_tiles(summary, metric),
        remarks=["Trials were judged on validation alone; only the winner was evaluated on the test split, once."],
        sections=sections,
    )


def _finished(tuning: TuningInput) -> list[tuple[dict[str, str], float]]:
    return [(row, float(row["value"])) for row in tuning.trials if row["state"] == "complete" and row["value"]]


def _verdict(tuning: TuningInput, metric: str) -> str:
    summary, best = tuning.summary, tuning.summary["best"]
    if best is None:
        return f"No trial has finished; {plural(summary['trials']['failed'], 'trial')} failed."
    point = ", ".join(f"{key} = {_shown(value)}" for key, value in best["params"].items())
    median = statistics.median(value for _, value in _finished(tuning)) if _finished(tuning) else best["value"]
    gain = f", {signed(100 * (best['value'] / median - 1), 1)} % against the median trial" if median else ""
    test = summary.get("test") or {}
    name = str(summary["metric"]).lower()
    tested = f"; on the test split it reaches {test[name]:.4f}" if name in test else ""
    count = plural(summary["trials"]["finished"] + summary["trials"]["pruned"], "trial")
    return f"{point} does best of {count}: {metric} {best['value']:.4f} on validation{gain}{tested}."


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _tiles(summary: dict[str, Any], metric: str) -> list[Tile]:
    best, counts = summary["best"], summary["trials"]
    tiles = [Tile(number(best["value"]), f"{metric}, validation")] if best else []
    name = str(summary["metric"]).lower()
    if name in (summary.get("test") or {}):
        tiles.append(Tile(number(summary["test"][name]), f"{metric}, test"))
    tiles.append(Tile(f"{counts['finished']:,}", "trials finished"))
    tiles.append(Tile(f"{counts['pruned']:,}", "ended early"))
    tiles.append(Tile(seconds_text(summary["seconds"]), "of training"))
    return tiles


def _results(tuning: TuningInput, metric: str, keys: list[str]) -> list[Block]:
    summary, best = tuning.summary, tuning.summary["best"]
    if best is None:
        return [Note("No trial has finished.", is_warning=True)]
    shares = summary.get("importances") or {}
    rows = []
    for key in sorted(keys, key=lambda each: -shares.get(each, 0.0)):
        line = next(line for line in summary["space"] if line.split()[0] == key)
        rows.append([
            Cell(key), Cell(_shown(best["params"].get(key)), is_best=True), Cell(line.partition(" ")[2]),
            Cell("n/a" if key not in shares else f"{shares[key]:.0%}", sort=shares.get(key)),
        ])  # fmt: skip
    columns = [
        Column("key"),
        Column("best"),
        Column("searched"),
        Column("importance", is_number=True, help="share of the score's variance (fANOVA)"),
    ]
    blocks: list[Block] = [Table(f"The winner, trial {best['trial']}", columns, rows)]
    valid, test = best.get("valid") or {}, summary.get("test") or {}
    names = list(test or valid)
    if names:
        body = [[Cell(metric_name(name)), Cell(number(test.get(name))), Cell(number(valid.get(name)))] for name in names]
        heads = [Column("metric"), Column("test", is_number=True), Column("validation", is_number=True)]
        blocks.append(
            Table(
                "What it reaches",
                heads,
                body,
                download="winner.csv",
                csv=csv_text([["metric", "test", "validation"], *([name, test.get(name), valid.get(name)] for name in names)]),
            )
        )
    if tuning.best:
        blocks.append(Code(tuning.best))
    if summary["failures"]:
        body = [[Cell(number), Cell(reason)] for number, reason in summary["failures"].items()]
        blocks.append(Table("Trials that failed", [Column("trial", is_number=True), Column("reason")], body))
    return blocks


def _plots(tuning: TuningInput, metric: str, keys: list[str]) -> list[Block]:
    best, shares = tuning.summary["best"], tuning.summary.get("importances") or {}
    trials = [
        (int(row["trial"]), float(row["value"]), row["state"] == "pruned")
        for row in tuning.trials
        if row["state"] in {"complete", "pruned"} and row["value"]
    ]
    bigger = bool(tuning.winner[0]["config"].get("valid_metric_bigger", True)) if tuning.winner else True
    finished = _finished(tuning)
    ordered = sorted(keys, key=lambda key: -shares.get(key, 0.0))
    values = {
        key: ([parse_value(row.get(key, "")) for row, _ in finished], [value for _, value in finished]) for key in ordered
    }
    drawn = [
        scores_by_trial(trials, metric, bigger, -1 if best is None else int(best["trial"])),
        slices(values, shares, metric),
    ]
    plots = [plot for plot in drawn if plot is not None]
    return [Plots(plots)] if plots else [Note("No trial has finished.")]


def _trials(tuning: TuningInput, metric: str, keys: list[str]) -> Table:
    best = tuning.summary["best"]
    ordered = sorted(tuning.trials, key=lambda row: -float(row["value"] or "-inf"))
    rows = []
    for row in ordered[:_SHOWN]:
        is_best = best is not None and row["trial"] == str(best["trial"])
        point = [(row.get(key, ""), parse_value(row.get(key, ""))) for key in keys]
        value = float(row["value"]) if row["value"] else None
        rows.append([
            Cell(row["trial"], sort=float(row["trial"]), tag="winner" if is_best else ""), Cell(row["state"]),
            Cell(number(value), sort=value, is_best=is_best), *(Cell(_shown(value), hint=text) for text, value in point),
            Cell(row.get("epochs", "")), Cell(row.get("seconds", "")),
        ])  # fmt: skip
    numbers = [Column(name, is_number=True) for name in ("epochs", "seconds")]
    columns = [Column("trial", is_number=True), Column("state"), Column(metric, is_number=True), *map(Column, keys), *numbers]
    left = len(ordered) - len(rows)
    head = list(tuning.trials[0]) if tuning.trials else []
    return Table(
        "Every trial, the best first",
        columns,
        rows,
        legend=[f"{left:,} more are in trials.csv."] if left > 0 else [],
        searchable=len(rows) > 8,
        download="trials.csv",
        csv=csv_text([head, *([row[name] for name in head] for row in ordered[:_SHOWN])]),
    )
