"""The names of the LLM stages, in the order in which they run; imports nothing, so that the command line can list them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["STAGE_CATALOGUE", "StageEntry"]


class StageEntry(NamedTuple):
    """Where a stage is, and what its verb does.

    Attributes:
        module: the module whose ``STAGE`` is the stage, a :class:`recbole_hnlm.stages.base.Stage`.
        help: one line for ``recbole-hnlm --help``.
    """

    module: str
    help: str


STAGE_CATALOGUE: dict[str, StageEntry] = {
    "profile": StageEntry("recbole_hnlm.stages.profile", "let the LLM describe items and users; what is already there is kept"),
    "negatives": StageEntry(
        "recbole_hnlm.stages.negatives", "let the LLM name hard negatives; missing profiles are built first"
    ),
    "finetune": StageEntry(
        "recbole_hnlm.finetune.stage",
        "fine-tune the LLM in 4 bits under collaborative supervision (negative_route finetuned)",
    ),
    "encode": StageEntry(
        "recbole_hnlm.semantics.encode",
        "make the vectors that training reads, with the text encoder or the fine-tuned LLM; what is missing is built first",
    ),
}
