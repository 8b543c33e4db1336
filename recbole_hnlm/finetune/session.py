"""The resources of the stages with the fine-tuned LLM among them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from recbole_hnlm.finetune.transferred import tuned_llm
from recbole_hnlm.stages.encode import item_text_vectors
from recbole_hnlm.stages.session import StageSession

if TYPE_CHECKING:
    from recbole_hnlm.finetune.run import TunedLLM

__all__ = ["FinetuneSession"]


class FinetuneSession(StageSession):
    """What the stages of one run share, for runs that may use the fine-tuned LLM."""

    @cached_property
    def tuned(self) -> TunedLLM:
        """The LLM tuned on the split, or on another dataset (``tuned_from``); its weights load when a vector is made."""
        return tuned_llm(self.context, lambda: item_text_vectors(self))
