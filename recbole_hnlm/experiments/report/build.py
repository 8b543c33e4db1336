"""From a place on disk to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.experiments.report.comparison_page import comparison_page, subject_record
from recbole_hnlm.experiments.report.inputs import ComparisonInput, RunInput, lists_of, read_input
from recbole_hnlm.experiments.report.page import render
from recbole_hnlm.experiments.report.run_page import run_page
from recbole_hnlm.experiments.report.samples import SampleOptions, Samples, gather_samples
from recbole_hnlm.experiments.report.tuning_page import tuning_page
from recbole_hnlm.experiments.report.verdict import comparison_verdict
from recbole_hnlm.utils.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from recbole_hnlm.experiments.report.inputs import TuningInput
    from recbole_hnlm.experiments.report.samples import Lists
    from recbole_hnlm.experiments.report.view import Page

__all__ = ["build_report", "write_report"]


def build_report(place: str | Path, options: SampleOptions | None = None, analysis: str | Path | None = None) -> str:
    """Return the HTML of a report.

    Args:
        place: ``results/<run_id>.json``, or a folder that ``compare`` or ``tune`` wrote.
        options: which sample users are shown; None takes the defaults.
        analysis: the folder that ``analyse`` wrote; None looks for it, see ``inputs.read_input``.

    Raises:
        HNLMError: there is nothing to report of, or a file is damaged.
    """
    return render(_page(read_input(place, analysis), options or SampleOptions()))


def write_report(
    place: str | Path, out: str | Path, options: SampleOptions | None = None, analysis: str | Path | None = None
) -> int:
    """Write a report, whole or not at all; returns its size in bytes.

    Raises:
        HNLMError: as :func:`build_report`, or the file cannot be written.
    """
    content = build_report(place, options, analysis).encode()
    with replacing(out) as partial:
        partial.write_bytes(content)
    return len(content)


def _page(found: RunInput | ComparisonInput | TuningInput, options: SampleOptions) -> Page:
    if isinstance(found, RunInput):
        return run_page(found, gather_samples(found.record, options))
    if isinstance(found, ComparisonInput):
        return _comparison(found, options)
    samples = gather_samples(found.winner[0], options) if found.winner else Samples()
    return tuning_page(found, samples)


def _comparison(found: ComparisonInput, options: SampleOptions) -> Page:
    """Sample users see the lists of the subject and of the reference side by side, of each one's first seed."""
    rows = found.table.rows[found.table.metrics[0]]
    subject = comparison_verdict(found.table, found.valid_means()).subject
    shown = [subject, *(row.label for row in rows if row.is_reference and row.label != subject)]
    lists: Lists = {}
    for label in shown:
        cell = next(iter(found.cells[label]), None)
        ranked = None if cell is None else lists_of(found.folder, cell)
        if cell is not None and ranked is not None:
            lists[label] = (cell.users.tolist(), ranked)
    samples = gather_samples(subject_record(found, subject), options, lists)
    if not lists and samples.people:
        samples.missing.append("What the methods recommend is not shown: the cells of this comparison hold no lists.")
    return comparison_page(found, samples)
