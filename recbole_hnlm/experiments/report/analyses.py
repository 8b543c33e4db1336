"""Sections made of ``analysis.json``, which ``recbole-hnlm analyse`` wrote; nothing is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.report.figures import Curve, curves, grouped
from recbole_hnlm.experiments.report.view import Note, Plots, Section
from recbole_hnlm.experiments.tables import metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["analysis_sections"]


def analysis_sections(
    analysis: Mapping[str, Any] | None, command: str, colours: Mapping[str, int] | None = None
) -> list[Section]:
    """Return the sections on groups and hardness, or one that says how to make them."""
    note = Note("Groups of users and items, hardness and semantic shift were not analysed. Make them, then this page again:", code=command)
    return [Section("groups", "Groups", "", [note])] if analysis is None else []
