"""The LLM stages: profiles, hard negatives and their vectors, each resumable and skipped when its output is there."""

from recbole_hnlm.stages.context import StageContext
from recbole_hnlm.stages.pipeline import STAGES, build_semantics, run_stage, stages_needed
from recbole_hnlm.stages.report import StageReport

__all__ = ["STAGES", "StageContext", "StageReport", "build_semantics", "run_stage", "stages_needed"]
