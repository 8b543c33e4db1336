"""The verdict in one sentence: pure functions from the numbers of a table to words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from recbole_hnlm.experiments.report.text import percent, plural
from recbole_hnlm.experiments.tables import metric_name, p_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.experiments.report.view import Tone
    from recbole_hnlm.experiments.summary import Comparison, Row, Table

__all__ = ["LEVEL", "Verdict", "comparison_verdict", "stars", "subject_of"]

LEVEL = 0.05
_NBSP = "\N{NO-BREAK SPACE}"
_ROLES = {"baseline": "the strongest baseline", "rival": "the strongest rival with texts", "hnlm": "the strongest of the rest"}


class Verdict(NamedTuple):
    """A sentence, whether it is good news, and the row that it is about."""

    sentence: str
    tone: Tone
    subject: str


def stars(p: float | None) -> str:
    """Return ``***`` below .001, ``**`` below .01, ``*`` below .05, ``n.s.`` otherwise, nothing where there is no test."""
    if p is None:
        return ""
    return next((mark for limit, mark in ((0.001, "***"), (0.01, "**"), (LEVEL, "*")) if p < limit), "n.s.")


def subject_of(table: Table, valid: Mapping[str, float | None]) -> str:
    """Return the label of the row that the verdict is about: the best on validation of those that are tested, HNLM rows first.

    Never chosen by test values. Where no row was tested, the best on validation, or the first row.

    Args:
        table: the comparison.
        valid: mean validation score of each row; None where it was never evaluated.
    """
    rows = table.rows[table.metrics[0]]
    ranked = sorted(rows, key=lambda row: -(valid.get(row.label) or float("-inf")))
    with_test = [row for row in ranked if row.comparison is not None]
    groups = ([row for row in with_test if row.role == "hnlm"], with_test, ranked)
    return next(group[0].label for group in groups if group)


def comparison_verdict(table: Table, valid: Mapping[str, float | None]) -> Verdict:
    """Say how the table's subject does against its reference, on the first metric.

    The test is the paired Wilcoxon test over users, Holm-corrected over the table's comparisons, at 5 %.

    Args:
        table: the comparison.
        valid: mean validation score of each row; None where it was never evaluated.
    """
    metric = table.metrics[0]
    rows = {row.label: row for row in table.rows[metric]}
    label = subject_of(table, valid)
    subject, reference = rows[label], next((row for row in rows.values() if row.is_reference), None)
    name = metric_name(metric)
    if len(rows) == 1:
        sentence = f"{label} reaches {name} {subject.mean:.4f} on {table.dataset}; nothing was compared with it."
        return Verdict(sentence, "plain", label)
    if reference is None or subject.comparison is None:
        best = next(row for row in rows.values() if row.is_best)
        sentence = (
            f"{best.label} has the highest {name} on {table.dataset}, {best.mean:.4f}, but without validation scores there is "
            "no reference to test it against."
        )
        return Verdict(sentence, "plain", best.label)
    return Verdict(_sentence(table, name, subject, reference, subject.comparison), _tone(subject.comparison), label)


def _tone(comparison: Comparison) -> Tone:
    p, test = comparison.adjusted["users_wilcoxon"], comparison.over_users
    ranks = test.rank_biserial or 0.0
    if p is None or p >= LEVEL or test.difference * ranks <= 0:
        return "tie"
    return "win" if test.difference > 0 else "loss"


def _sentence(table: Table, name: str, subject: Row, reference: Row, comparison: Comparison) -> str:
    p, test, tone = comparison.adjusted["users_wilcoxon"], comparison.over_users, _tone(comparison)
    rival = f"{reference.label}, {_ROLES[reference.role if reference.role != subject.role else 'hnlm']} on validation"
    numbers = f"{name} {subject.mean:.4f} against {reference.mean:.4f}"
    change = "" if subject.improvement is None else f" by {percent(subject.improvement)}"
    shown = "p < .0001" if p is not None and p < 1e-4 else f"p = {p_text(p)}"
    tested = f"{shown.replace(' ', _NBSP)} over {plural(test.n, 'user')}"
    if tone == "win":
        return f"{subject.label} beats {rival},{change} on {table.dataset}: {numbers} ({tested})."
    if tone == "loss":
        return f"{subject.label} falls behind {rival},{change} on {table.dataset}: {numbers} ({tested})."
    if p is not None and p < LEVEL:
        more, fewer = ("higher", "worse") if test.difference > 0 else ("lower", "better")
        return (
            f"{subject.label} and {rival}, disagree by measure on {table.dataset}: the mean is {more}, {numbers}, while users "
            f"are more often {fewer} off ({tested})."
        )
    return f"{subject.label} and {rival}, cannot be told apart on {table.dataset}: {numbers} ({tested})."
