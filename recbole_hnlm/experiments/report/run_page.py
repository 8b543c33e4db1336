"""The page of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.report.analyses import analysis_sections
from recbole_hnlm.experiments.report.figures import Curve, curves
from recbole_hnlm.experiments.report.parts import (
    config_section,
    data_blocks,
    people_section,
    repeat_section,
    run_command,
    tokens_by_stage,
)
from recbole_hnlm.experiments.report.text import csv_text, number, plural, seconds_text
from recbole_hnlm.experiments.report.view import Cell, Column, Note, Page, Plots, Section, Table, Tile
from recbole_hnlm.experiments.tables import metric_name

if TYPE_CHECKING:
    from recbole_hnlm.experiments.report.inputs import RunInput
    from recbole_hnlm.experiments.report.samples import Samples
    from recbole_hnlm.experiments.report.view import Block, Plot

__all__ = ["run_page"]

_ALONE = "One run says how good a model is, not whether it is better than another. A comparison tests that, user by user:"


def run_page(run: RunInput, samples: Samples) -> Page:
    """Return the page of one run."""
    record = run.record
    model, dataset = str(record["model"]), str(record["dataset"])
    return Page(
        title=f"{model} on {dataset}",
        kicker=f"One run · {record['run_id']}",
        verdict=_verdict(record),
        tone="plain",
        tiles=_tiles(record),
        sections=[
            Section(
                "results",
                "Results",
                "",
                [
                    _metrics(record),
                    Note(
                        _ALONE, code=f"recbole-hnlm compare --dataset={dataset} --models={model},OTHER --seeds=5 --out=FOLDER"
                    ),
                ],
            ),
            Section("data", "What it was run on", "", data_blocks(record, samples)),
            Section("training", "Training", "", _training(record)),
            *analysis_sections(
                run.analyses,
                f"recbole-hnlm analyse {run.path.parent.name}/{run.path.name} --out={run.path.parent.name}/analysis",
                _main_metric(record),
            ),
            people_section(samples),
            config_section({model: record["config"]}),
            repeat_section(
                run_command(record),
                [record],
                run.energy,
                "The keys that were given are not in this record: an older version wrote it.",
            ),
        ],
    )


def _main_metric(record: dict[str, Any]) -> str:
    name = str(record["config"].get("valid_metric") or "").lower()
    results = record["test_result"] or record.get("best_valid_result") or {}
    return name if name in results else next(iter(results), name)


def _verdict(record: dict[str, Any]) -> str:
    metric, test, valid = _main_metric(record), record["test_result"], record.get("best_valid_result") or {}
    if not test and not valid:
        return f"{record['model']} was trained on {record['dataset']} and never evaluated."
    name, value, split = metric_name(metric), (test or valid)[metric], "test" if test else "validation"
    after = f", {valid[metric]:.4f} on validation" if test and valid and metric in valid else ""
    best, epochs = record.get("best_epoch"), record.get("epochs") or 0
    when = f", with the model of epoch {best + 1} of {epochs}" if best is not None and epochs else ""
    unread = "" if test else "; the test split was not read"
    return f"{record['model']} reaches {name} {value:.4f} on the {split} split of {record['dataset']}{after}{when}{unread}."


def _tiles(record: dict[str, Any]) -> list[Tile]:
    results, metric = record["test_result"] or record.get("best_valid_result") or {}, _main_metric(record)
    tiles = (
        [Tile(number(results[metric]), f"{metric_name(metric)}, {'test' if record['test_result'] else 'validation'}")]
        if results
        else []
    )
    counts = record.get("data")
    if isinstance(counts, dict):
        tiles.append(Tile(f"{counts['users']:,}", "users"))
        tiles.append(Tile(f"{counts['items']:,}", "items"))
    if record.get("epochs"):
        tiles.append(Tile(str(record["epochs"]), "epochs"))
    tiles.append(Tile(seconds_text(sum((record.get("seconds") or {}).values())), "in all"))
    return tiles


def _metrics(record: dict[str, Any]) -> Table:
    test, valid = record["test_result"] or {}, record.get("best_valid_result") or {}
    names = list(test or valid)
    main = _main_metric(record)
    rows = [
        [
            Cell(metric_name(name), tag="chooses the epoch" if name == main and valid else ""),
            *(Cell(number(part.get(name)), is_best=name == main) for part in (test, valid)),
        ]
        for name in names
    ]
    return Table(
        "Means over users",
        [Column("metric"), Column("test", is_number=True), Column("validation", is_number=True)],
        rows,
        legend=["The epoch was chosen on validation; the test split was read once, at the end."] if valid and test else [],
        download="metrics.csv",
        csv=csv_text([["metric", "test", "validation"], *([name, test.get(name), valid.get(name)] for name in names)]),
    )


def _training(record: dict[str, Any]) -> list[Block]:
    loss = list(enumerate(record.get("train_loss") or [], start=1))
    scores = [(epoch + 1, score) for epoch, score in record.get("valid_scores") or []]
    rates = [(epoch + 1, 100 * rate) for epoch, rate in enumerate(record.get("false_negative_rates") or []) if rate is not None]
    drawn: list[Plot | None] = [
        curves("loss", "Training loss", "loss", [Curve(str(record["model"]), [loss])], "Sum of the loss's parts, by epoch."),
        curves(
            "valid",
            "Validation",
            metric_name(str(record["config"].get("valid_metric", "score")).lower()),
            [Curve(str(record["model"]), [scores])],
            "The score that chooses the epoch.",
        ),
        curves(
            "false-negatives",
            "False hard negatives",
            "% of chosen negatives",
            [Curve(str(record["model"]), [rates])],
            "Negatives of training that the user in fact chose in validation or test.",
        ),
    ]
    plots = [plot for plot in drawn if plot is not None]
    blocks: list[Block] = (
        [Plots(plots)] if plots else [Note("No epoch was trained: this model has a closed form or was loaded.")]
    )
    if not scores and loss:
        blocks.append(
            Note("Validation scores by epoch are not in this record: an older version wrote it, or nothing was validated.")
        )
    if not rates and loss:
        blocks.append(
            Note(
                "False hard negatives were not counted in this run; a new one counts them with",
                code="--count_false_negatives=True",
            )
        )
    blocks += _cost(record)
    if record.get("resumed_from"):
        blocks.append(
            Note(f"The run went on from a checkpoint; {plural(len(scores), 'validation score')} are those since then.")
        )
    return blocks


def _cost(record: dict[str, Any]) -> list[Block]:
    """Seconds of each stage, and tokens where an LLM was asked."""
    seconds, stages = record.get("seconds") or {}, record.get("stages") or {}
    if not seconds:
        return []
    columns, spent = [Column("stage"), Column("seconds", is_number=True)], tokens_by_stage(record)
    if stages:
        columns += [Column(f"tokens {way}", is_number=True) for way in ("in", "out")]
    rows = []
    for stage, value in sorted(seconds.items(), key=lambda each: -each[1]):
        counts = spent.get(stage, (0, 0))
        cells = [Cell("n/a" if count is None else f"{count:,}", sort=count or 0) for count in counts] if stages else []
        rows.append([Cell(stage), Cell(f"{value:.1f}", sort=value), *cells])
    legend = (
        ["Tokens are those that this run asked the LLM to read and write; replies that were there already cost none."]
        if stages
        else []
    )
    return [Table("Cost by stage", columns, rows, legend=legend)]
