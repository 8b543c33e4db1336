"""The page of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.experiments.report.analyses import analysis_sections
from recbole_hnlm.experiments.report.figures import Curve, bars, cost_plot, curves, interval, user_differences
from recbole_hnlm.experiments.report.parts import config_section, data_blocks, people_section, repeat_section, tokens_of_replies
from recbole_hnlm.experiments.report.text import csv_text, number, plural, safe_csv, seconds_text, signed
from recbole_hnlm.experiments.report.verdict import comparison_verdict, stars
from recbole_hnlm.experiments.report.view import Cell, Column, Details, Note, Page, Plots, Section, Table, Tile
from recbole_hnlm.experiments.tables import csv_table, metric_name, p_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from recbole_hnlm.experiments.report.inputs import ComparisonInput
    from recbole_hnlm.experiments.report.samples import Samples
    from recbole_hnlm.experiments.report.view import Block, Plot
    from recbole_hnlm.experiments.store import FinishedCell
    from recbole_hnlm.experiments.summary import Row

__all__ = ["comparison_page", "subject_record"]

Series = list[tuple[float, float]]
# Method, place of its colour, cost, mean, standard deviation.
Point = tuple[str, int, float, float, "float | None"]
_UNITS = ((1e6, "million tokens"), (1e3, "thousand tokens"))

_ROLES = {"baseline": "baseline", "rival": "reads texts", "hnlm": "HNLM"}
_LEGEND = (
    "Best in bold. Stars: two-sided paired Wilcoxon test over users against the reference, Holm-corrected over the comparisons "
    "of this table: *** p < .001, ** p < .01, * p < .05, n.s. not significant. ▲ better, ▼ worse than the reference, which was "
    "chosen on validation. Point at a starred number, or focus it, for the other tests."
)


def comparison_page(comparison: ComparisonInput, samples: Samples) -> Page:
    """Return the page of a comparison."""
    table, cells = comparison.table, comparison.cells
    metric = metric_name(table.metrics[0])
    verdict = comparison_verdict(table, comparison.valid_means())
    rows = table.rows[table.metrics[0]]
    colours = {row.label: place for place, row in enumerate(rows)}
    records = [cell.record for some in cells.values() for cell in some]
    subject = next(row for row in rows if row.label == verdict.subject)
    missing, all_cells = len(comparison.missing), len(records) + len(comparison.missing)
    return Page(
        title=f"{plural(len(rows), 'method')} on {table.dataset}",
        kicker=f"Comparison · {table.dataset} · {plural(len(rows), 'method')} · {_seeds(rows)}",
        verdict=verdict.sentence,
        tone=verdict.tone,
        remarks=[f"{missing:,} of {all_cells:,} cells are missing: failed, or not run yet."] if missing else [],
        tiles=_tiles(comparison, subject, metric),
        sections=[
            Section("results", "Results", "", _results(comparison, colours)),
            Section(
                "users",
                "User by user",
                "A mean hides who gains and who loses. Each panel compares "
                f"{verdict.subject} with one other method on the same users.",
                _differences(comparison, verdict.subject),
            ),
            Section(
                "data",
                "What it was run on",
                "",
                [*_how(comparison), *data_blocks(subject_record(comparison, subject.label), samples)],
            ),
            Section("plots", "Plots", "", _plots(comparison, colours)),
            *analysis_sections(
                comparison.analyses,
                f"recbole-hnlm analyse --compare={comparison.folder.name} --out={comparison.folder.name}/analysis",
                table.metrics[0],
                colours,
            ),
            people_section(samples),
            config_section({label: some[0].record["config"] for label, some in cells.items() if some}),
            *_tuning(comparison),
            repeat_section(
                comparison.command,
                records,
                comparison.energy,
                "The command was not recorded: an older version wrote this folder.",
            ),
            *([Section("failures", "What failed", "", [_failures(comparison)])] if comparison.failures else []),
        ],
    )


def subject_record(comparison: ComparisonInput, label: str) -> dict[str, Any]:
    """Return the record of a method's first seed; of any other where it has none."""
    some = comparison.cells.get(label) or next(each for each in comparison.cells.values() if each)
    return some[0].record


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({len(row.seeds) for row in rows})
    return plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _tiles(comparison: ComparisonInput, subject: Row, metric: str) -> list[Tile]:
    tiles = [Tile(number(subject.mean), f"{metric} of {subject.label}")]
    if subject.improvement is not None:
        tiles.append(Tile(f"{signed(100 * subject.improvement, 1)} %", "against the reference"))
    if subject.comparison is not None:
        p = subject.comparison.adjusted["users_wilcoxon"]
        tiles.append(Tile("< .0001" if p is not None and p < 1e-4 else p_text(p), "p over users, corrected"))
        tiles.append(Tile(_wins(comparison, subject), "seeds ahead"))
    tiles.append(Tile(f"{comparison.table.users:,}", "test users"))
    return tiles


def _wins(comparison: ComparisonInput, subject: Row) -> str:
    """Count the seeds in which the subject is ahead of the reference."""
    reference = next(row for row in comparison.table.rows[comparison.table.metrics[0]] if row.is_reference)
    theirs = dict(zip(reference.seeds, reference.values, strict=True))
    mine = dict(zip(subject.seeds, subject.values, strict=True))
    both = [seed for seed in mine if seed in theirs]
    return f"{sum(mine[seed] > theirs[seed] for seed in both)} of {len(both)}"


def _results(comparison: ComparisonInput, colours: dict[str, int]) -> list[Block]:
    table = comparison.table
    blocks: list[Block] = [_main_table(comparison, colours)]
    if len(table.metrics) > 1:
        blocks.append(_all_metrics(comparison))
    details: list[Block] = []
    for metric in table.metrics:
        details += [_tests(table.rows[metric], metric)]
        if table.rival_rows.get(metric):
            details.append(_tests(table.rival_rows[metric], metric, " against the strongest rival that reads texts"))
    blocks.append(Details("Every test, in numbers", details))
    blocks += [Note(note) for note in table.notes]
    return blocks


def _change(row: Row) -> Cell:
    if row.is_reference:
        return Cell("reference", sort=0.0)
    if row.improvement is None:
        return Cell("n/a")
    test = row.comparison
    arrow = "▲ " if row.improvement > 0 else "▼ " if row.improvement < 0 else ""
    text = f"{arrow}{signed(100 * row.improvement, 2)} %"
    if test is None:
        return Cell(text, sort=row.improvement)
    return Cell(text, sort=row.improvement, stars=stars(test.adjusted["users_wilcoxon"]), hint=_hint(row))


def _hint(row: Row) -> str:
    test = row.comparison
    if test is None:
        return ""
    p = {name: p_text(value) for name, value in test.adjusted.items()}
    return (
        f"over {test.over_users.n:,} users: Wilcoxon p {p['users_wilcoxon']}, t p {p['users_t']}, "
        f"d {number(test.over_users.d_z, 2)}; over {plural(test.over_seeds.n, 'seed')}: Wilcoxon p {p['seeds_wilcoxon']}, "
        f"t p {p['seeds_t']}"
    )


def _mean(row: Row) -> Cell:
    spread = "" if row.std is None else f" ± {row.std:.4f}"
    return Cell(f"{row.mean:.4f}{spread}", sort=row.mean, is_best=row.is_best)


def _main_table(comparison: ComparisonInput, colours: dict[str, int]) -> Table:
    table = comparison.table
    metric = table.metrics[0]
    rows = table.rows[metric]
    low = min(row.mean - (row.std or 0.0) for row in rows)
    high = max(row.mean + (row.std or 0.0) for row in rows)
    counted = any(row.false_negative_rate is not None for row in rows)
    chosen = any(row.chosen is not None for row in rows)
    columns = [
        Column("method"),
        Column(metric_name(metric), is_number=True, help="mean over users and seeds ± standard deviation over seeds"),
        Column("vs. reference", is_number=True, help="difference of the means, with the test over users"),
        Column("", help="mean and standard deviation on a common axis"),
        Column("s / epoch", is_number=True, help="median seconds of an epoch, without validation"),
        *(
            [Column("false neg. %", is_number=True, help="share of chosen negatives that are held-out positives")]
            if counted
            else []
        ),
        *([Column("tuned")] if chosen else []),
    ]
    body = []
    for row in sorted(rows, key=lambda each: -each.mean):
        cells = [
            Cell(row.label, tag=_ROLES[row.role]),
            _mean(row),
            _change(row),
            Cell("", sort=row.mean, picture=interval(row.mean, row.std, (low, high), colours[row.label], row.label)),
            Cell(number(row.epoch_seconds, 2), sort=row.epoch_seconds),
        ]
        rate = None if row.false_negative_rate is None else 100 * row.false_negative_rate
        body.append(
            [*cells, *([Cell(number(rate, 3), sort=rate)] if counted else []), *([Cell(row.chosen or "n/a")] if chosen else [])]
        )
    caption = f"{metric_name(metric)} on {table.dataset}, test split, {table.users:,} users, {_seeds(rows)}"
    return Table(caption, columns, body, legend=[_LEGEND], download="comparison.csv", csv=safe_csv(csv_table(table)))


def _all_metrics(comparison: ComparisonInput) -> Table:
    table = comparison.table
    order = [row.label for row in sorted(table.rows[table.metrics[0]], key=lambda each: -each.mean)]
    by_metric = {metric: {row.label: row for row in table.rows[metric]} for metric in table.metrics}
    body = []
    for label in order:
        cells = [Cell(label)]
        for metric in table.metrics:
            row = by_metric[metric][label]
            test = row.comparison
            mark = "" if test is None else stars(test.adjusted["users_wilcoxon"]).replace("n.s.", "")
            cells.append(
                Cell(number(row.mean), sort=row.mean, is_best=row.is_best, stars=mark, hint=_hint(row) if mark else "")
            )
        body.append(cells)
    columns = [Column("method"), *(Column(metric_name(metric), is_number=True) for metric in table.metrics)]
    return Table(
        "Every metric, means over users and seeds",
        columns,
        body,
        legend=["Stars say that a difference to the reference is significant, in either direction."],
    )


def _tests(rows: Sequence[Row], metric: str, against: str = "") -> Table:
    names = ("W users", "t users", "d users", "r users", "W seeds", "t seeds", "d seeds")
    body = []
    for row in rows:
        test = row.comparison
        numbers = [""] * len(names)
        if test is not None:
            p = test.adjusted
            numbers = [
                p_text(p["users_wilcoxon"]), p_text(p["users_t"]), number(test.over_users.d_z, 2),
                number(test.over_users.rank_biserial, 2), p_text(p["seeds_wilcoxon"]), p_text(p["seeds_t"]),
                number(test.over_seeds.d_z, 2),
            ]  # fmt: skip
        body.append([Cell(row.label, tag="reference" if row.is_reference else ""), _mean(row), *map(Cell, numbers)])
    columns = [Column("method"), Column("mean ± std", is_number=True), *(Column(name, is_number=True) for name in names)]
    legend = (
        "W: Wilcoxon, t: paired t-test (p, Holm-corrected); d: Cohen's d of the differences; r: rank-biserial correlation; "
        "positive is better than the reference."
    )
    return Table(f"{metric_name(metric)}{against}", columns, body, legend=[legend])


def _by_user(cells: Sequence[FinishedCell], metric: str) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
    """Average each user's value over seeds; users in the order of their ids."""
    users, place = np.unique(np.concatenate([cell.users for cell in cells]), return_inverse=True)
    values = np.concatenate([cell.values[metric] for cell in cells]).astype(np.float64)
    return users, np.bincount(place, weights=values) / np.bincount(place)


def _differences(comparison: ComparisonInput, subject: str) -> list[Block]:
    metric = comparison.table.metrics[0]
    averaged = {label: _by_user(cells, metric) for label, cells in comparison.cells.items() if cells}
    panels: list[tuple[str, npt.NDArray[np.float64]]] = []
    rows = []
    mine_users, mine = averaged[subject]
    tests = {row.label: row for row in comparison.table.rows[metric]}
    for label, (users, values) in averaged.items():
        if label == subject:
            continue
        _, here, there = np.intersect1d(mine_users, users, return_indices=True)
        difference = mine[here] - values[there]
        # Means over seeds of float32: what is equal on paper differs by rounding.
        difference[np.isclose(mine[here], values[there], rtol=1e-6, atol=1e-9)] = 0.0
        panels.append((label, difference))
        rows.append(_difference_row(label, difference, tests[label].is_reference))
    plot = user_differences(panels, subject, metric_name(metric))
    if plot is None:
        return [Note("There is no other method to compare with.")]
    columns = [
        Column(f"{subject} against"),
        *(Column(name, is_number=True) for name in ("better", "equal", "worse", "mean Δ", "median Δ of those who differ")),
    ]
    raw = [["user", *(f"difference to {label}" for label, _ in panels)]]
    if all(len(values) == len(mine) for _, values in panels):
        raw += [[user, *(f"{values[place]:.6g}" for _, values in panels)] for place, user in enumerate(mine_users.tolist())]
    is_small = len(mine) * len(panels) <= 12_000
    table = Table(
        "How many users each method serves better",
        columns,
        rows,
        download="users.csv" if is_small and len(raw) > 1 else "",
        csv=csv_text(raw) if is_small else "",
    )
    return [Plots([plot]), table]


def _difference_row(label: str, difference: npt.NDArray[np.float64], is_reference: bool) -> list[Cell]:
    shares = [float(np.mean(mask)) for mask in (difference > 0, difference == 0, difference < 0)]
    differing = difference[difference != 0]
    median = float(np.median(differing)) if len(differing) else 0.0
    mean = float(difference.mean()) if len(difference) else 0.0
    return [
        Cell(label, tag="reference" if is_reference else ""),
        *(Cell(f"{100 * share:.1f} %", sort=share) for share in shares),
        Cell(signed(mean, 4), sort=mean),
        Cell(signed(median, 4), sort=median),
    ]


def _how(comparison: ComparisonInput) -> list[Block]:
    rows = []
    for label, cells in comparison.cells.items():
        if not cells:
            continue
        record = cells[0].record
        total = float(np.mean([sum(cell.record["seconds"].values()) for cell in cells]))
        epochs = [int(cell.record["epochs"]) for cell in cells]
        rows.append([
            Cell(label), Cell(str(record["model"])), Cell(str(record["config"].get("negative_sampler") or "RecBole's")),
            Cell(" to ".join(str(each) for each in dict.fromkeys((min(epochs), max(epochs)))), sort=float(np.mean(epochs))),
            Cell(seconds_text(total), sort=total), _tokens(record),
        ])  # fmt: skip
    columns = [
        Column("method"),
        Column("model that ran"),
        Column("negative sampler"),
        Column("epochs", is_number=True),
        Column("time of a cell", is_number=True),
        Column("tokens of the LLM", is_number=True),
    ]
    return [Table("What was run", columns, rows)]


def _plots(comparison: ComparisonInput, colours: dict[str, int]) -> list[Block]:
    table, cells = comparison.table, comparison.cells
    rows = {row.label: row for row in sorted(table.rows[table.metrics[0]], key=lambda each: -each.mean)}
    found = {metric: {row.label: row for row in table.rows[metric]} for metric in table.metrics}
    values = {
        metric_name(metric): {label: (each[label].mean, each[label].std) for label in rows} for metric, each in found.items()
    }
    metric = metric_name(table.metrics[0])
    spent, asked, tokens = [], [], []
    for label, some in cells.items():
        if not some:
            continue
        row, place = rows[label], colours[label]
        spent.append(
            (label, place, float(np.mean([cell.record["seconds"].get("train", 0.0) for cell in some])), row.mean, row.std)
        )
        replies = float(np.mean([_replies(cell.record) for cell in some]))
        if replies:
            asked.append((label, place, replies, row.mean, row.std))
        counts = [count for cell in some if (count := tokens_of_replies(cell.record)) is not None]
        if counts:
            tokens.append((label, place, float(np.mean(counts)), row.mean, row.std))
    order = [colours[label] for label in cells]

    def over_epochs(
        name: str, title: str, ylabel: str, series: Callable[[dict[str, Any]], Series], caption: str
    ) -> Plot | None:
        lines = [Curve(label, [series(cell.record) for cell in some]) for label, some in cells.items()]
        return curves(name, title, ylabel, lines, caption, colours=order)

    plots: list[Plot | None] = [
        bars(values, colours),
        over_epochs(
            "valid", "Validation", metric, _scores, "Score on validation: mean over seeds, band from the lowest to the highest."
        ),
        over_epochs(
            "loss", "Training loss", "loss of the first epoch = 1", _losses,
            "Each method has its own loss, so each curve is divided by its first epoch.",
        ),
        over_epochs(
            "false-negatives", "False hard negatives", "% of chosen negatives", _rates,
            "Negatives of training that the user in fact chose in validation or test.",
        ),
        cost_plot("seconds", "Quality against time", "seconds of training", metric, spent, "Up is better, left is cheaper."),
        _llm_plot(metric, asked, tokens),
    ]  # fmt: skip
    blocks: list[Block] = [Plots([plot for plot in plots if plot is not None])]
    if not any(_rates(cell.record) for some in cells.values() for cell in some):
        blocks.append(
            Note(
                "False hard negatives were not counted; a new comparison counts them with", code="--count_false_negatives=True"
            )
        )
    return blocks


def _llm_plot(metric: str, asked: Sequence[Point], tokens: Sequence[Point]) -> Plot | None:
    """Quality against tokens where those of every method are known, otherwise against replies."""
    if any(cost for _, _, cost, _, _ in tokens) and {label for label, *_ in asked} <= {label for label, *_ in tokens}:
        caption = (
            "Tokens that the LLM read and wrote for the replies that a method reads, whichever cell asked for them; a method "
            "at 0 asks nothing."
        )
        highest = max(cost for _, _, cost, _, _ in tokens)
        unit, word = next((pair for pair in _UNITS if highest >= pair[0]), (1, "tokens"))
        scaled = [(label, place, cost / unit, mean, std) for label, place, cost, mean, std in tokens]
        return cost_plot("tokens", "Quality against the LLM", f"{word} of the LLM, in and out", metric, scaled, caption)
    caption = "Replies that the LLM gave for a method, whichever cell asked for them. Their tokens are not known of all."
    return cost_plot("replies", "Quality against the LLM", "replies of the LLM that a method reads", metric, asked, caption)


def _replies(record: dict[str, Any]) -> int:
    stages = record.get("stages") or {}
    return sum(int(stage["total"]) for name, stage in stages.items() if name != "encode")


def _scores(record: dict[str, Any]) -> Series:
    return [(epoch + 1, score) for epoch, score in record.get("valid_scores") or []]


def _losses(record: dict[str, Any]) -> Series:
    losses = record.get("train_loss") or []
    first = losses[0] if losses and losses[0] > 0 else 1.0
    return [(epoch, loss / first) for epoch, loss in enumerate(losses, start=1)]


def _rates(record: dict[str, Any]) -> Series:
    rates = record.get("false_negative_rates") or []
    return [(epoch, 100 * rate) for epoch, rate in enumerate(rates, start=1) if rate is not None]


def _tuning(comparison: ComparisonInput) -> list[Section]:
    if not comparison.grid:
        return []
    rows = [[Cell(row.label), Cell(row.chosen or "n/a")] for row in comparison.table.rows[comparison.table.metrics[0]]]
    table = Table("What tuning chose on validation, with the first seed", [Column("method"), Column("point")], rows)
    return [Section("tuning", "Tuning", "", [table])]


def _failures(comparison: ComparisonInput) -> Table:
    rows = [[Cell(identity), Cell(reason)] for identity, reason in comparison.failures.items()]
    return Table("Cells that failed; the same command runs them again", [Column("cell"), Column("reason")], rows)


def _tokens(record: dict[str, Any]) -> Cell:
    count = tokens_of_replies(record)
    return Cell("n/a") if count is None else Cell(f"{count:,}", sort=count)
