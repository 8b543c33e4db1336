"""The comparison as Markdown, CSV and LaTeX: pure functions from numbers to text."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recbole_hnlm.experiments.summary import Row, Table

__all__ = ["CAPTION", "csv_table", "escape_latex", "latex_table", "markdown_table", "metric_name", "p_text"]

CAPTION = (
    "Mean and sample standard deviation over seeds; best in bold; difference to the reference (marked *), which is chosen on "
    "validation. "
    "p: two-sided paired Wilcoxon / t against the reference, Holm-corrected over the comparisons of this table; over users "
    "(each averaged over seeds) and over seeds. d: Cohen's d_z; r: rank-biserial correlation; positive is better than the "
    "reference. Seconds per epoch without validation (median)."
)
_HEADERS = ("method", "mean ± std", "vs *", "p users W / t", "d / r users", "p seeds W / t", "d / r seeds", "s / epoch")
_FALSE_NEGATIVES, _CHOSEN = "FN %", "chosen"
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


def escape_latex(text: str) -> str:
    """Replace every character that LaTeX gives a meaning."""
    return "".join(_LATEX.get(character, character) for character in text)


def p_text(p: float | None) -> str:
    """Write a p value: three significant digits, ``<1e-4`` below, ``n/a`` where there is none."""
    if p is None:
        return "n/a"
    return "<1e-4" if p < 1e-4 else f"{p:.3g}"


def _signed(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:+.{digits}f}"


def _cells(row: Row, headers: Sequence[str], bold: Callable[[str], str]) -> list[str]:
    value = f"{row.mean:.4f}" + ("" if row.std is None else f" ± {row.std:.4f}")
    difference = "*" if row.is_reference else "n/a" if row.improvement is None else f"{100 * row.improvement:+.2f} %"
    tests = [""] * 4
    if row.comparison is not None:
        users, seeds, p = row.comparison.over_users, row.comparison.over_seeds, row.comparison.adjusted
        tests = [
            f"{p_text(p['users_wilcoxon'])} / {p_text(p['users_t'])}",
            f"{_signed(users.d_z)} / {_signed(users.rank_biserial)}",
            f"{p_text(p['seeds_wilcoxon'])} / {p_text(p['seeds_t'])}",
            f"{_signed(seeds.d_z)} / {_signed(seeds.rank_biserial)}",
        ]
    seconds = "n/a" if row.epoch_seconds is None else f"{row.epoch_seconds:.2f}"
    rate = "n/a" if row.false_negative_rate is None else f"{100 * row.false_negative_rate:.3f}"
    optional = {_FALSE_NEGATIVES: rate, _CHOSEN: row.chosen or "n/a"}
    last = [text for header, text in optional.items() if header in headers]
    return [row.label, bold(value) if row.is_best else value, difference, *tests, seconds, *last]


def _headers(rows: Sequence[Row]) -> tuple[str, ...]:
    counted = any(row.false_negative_rate is not None for row in rows)
    optional = {_FALSE_NEGATIVES: counted, _CHOSEN: any(row.chosen is not None for row in rows)}
    return (*_HEADERS, *(name for name, is_there in optional.items() if is_there))


def metric_name(name: str) -> str:
    """Write ``ndcg@20`` as ``NDCG@20``."""
    metric, at, k = name.partition("@")
    return {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}.get(metric, metric.capitalize()) + at + k


def _sides(table: Table) -> list[tuple[str, str, list[Row]]]:
    """Metric, title and rows of each table: against the first reference, then, where there are any, against the rival."""
    sides = []
    for metric in table.metrics:
        about = _about(table, metric)
        sides.append((metric, about, table.rows[metric]))
        if table.rival_rows.get(metric):
            sides.append((metric, f"{about}, against the strongest rival", table.rival_rows[metric]))
    return sides


def _about(table: Table, metric: str) -> str:
    seeds = sorted({len(row.seeds) for row in table.rows[metric]})
    count = f"{'/'.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}"
    return f"{metric_name(metric)} on {table.dataset}, test split, {table.users:,} users, {count}"


def markdown_table(table: Table) -> str:
    """Write one Markdown table per metric and reference, then the caption and the notes."""
    parts = []
    for _, about, rows in _sides(table):
        headers = _headers(rows)
        lines = [f"### {about}", "", _md_line(headers), "|---|" + "---:|" * (len(headers) - 1)]
        lines += [_md_line(_cells(row, headers, "**{}**".format)) for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, CAPTION.replace("*", "\\*"), *(f"- {note}" for note in table.notes)]) + "\n"


def _md_line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") if cell != "*" else "\\*" for cell in cells)
    return "| " + " | ".join(cell.replace("vs *", "vs \\*") for cell in escaped) + " |"


def csv_table(table: Table) -> str:
    """Write one line per method, metric and reference with unrounded numbers; absent values are empty."""
    tests = [f"{over}_{name}" for over in ("users", "seeds") for name in ("n", "difference", "d_z", "rank_biserial")]
    p = [f"{over}_{test}_p{kind}" for over in ("users", "seeds") for test in ("wilcoxon", "t") for kind in ("", "_holm")]
    head = ["metric", "method", "role", "seeds", "mean", "std", "best", "against", "improvement", "epoch_seconds"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, *tests, *p, "false_negative_rate", "chosen"])
    for metric, _, rows in _sides(table):
        against = next((row.label for row in rows if row.is_reference), None)
        for row in rows:
            seeds = " ".join(map(str, row.seeds))
            known = [metric, row.label, row.role, seeds, row.mean, row.std, row.is_best, against]
            writer.writerow(
                [*known, row.improvement, row.epoch_seconds, *_test_numbers(row), row.false_negative_rate, row.chosen]
            )
    return stream.getvalue()


def _test_numbers(row: Row) -> list[float | None]:
    if row.comparison is None:
        return [None] * 16
    sides = (row.comparison.over_users, row.comparison.over_seeds)
    numbers = [value for side in sides for value in (side.n, side.difference, side.d_z, side.rank_biserial)]
    adjusted = row.comparison.adjusted
    for name, side in zip(("users", "seeds"), sides, strict=True):
        numbers += [side.wilcoxon_p, adjusted[f"{name}_wilcoxon"], side.t_p, adjusted[f"{name}_t"]]
    return numbers


def latex_table(table: Table) -> str:
    """Write one ``table*`` environment per metric and reference; needs the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for _, about, rows in _sides(table):
        headers = _headers(rows)
        body = [_tex_line(_cells(row, headers, "\0{}\1".format)) for row in rows]
        caption = escape_latex(" ".join([f"{about}.", CAPTION, *table.notes]))
        lines = [
            r"\begin{table*}",
            r"\centering",
            r"\small",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}",
            r"\toprule",
            _tex_line(headers),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _tex_line(cells: Sequence[str]) -> str:
    # Control characters mark bold text, because escaping leaves them alone.
    escaped = (escape_latex(cell).replace("\0", r"\textbf{").replace("\1", "}") for cell in cells)
    # A minus before a number, not the hyphen of 1e-4.
    return " & ".join(re.sub(r"(?<!\w)-(?=\d)", "$-$", cell) for cell in escaped) + r" \\"
