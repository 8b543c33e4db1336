"""Analyses of finished runs, as plain values and as files: see docs/analysis.md."""

from __future__ import annotations

from recbole_hnlm.experiments.analysis.build import AnalysisOptions, analyse
from recbole_hnlm.experiments.analysis.together import analyse_all

__all__ = ["AnalysisOptions", "analyse", "analyse_all"]
