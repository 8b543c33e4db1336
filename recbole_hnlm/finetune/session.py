"""The resources of the stages with the fine-tuned LLM among them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from recbole_hnlm.stages.encode import item_text_vectors
from recbole_hnlm.stages.session import StageSession

if TYPE_CHECKING:
    from recbole_hnlm.finetune.run import FinetunedLLM

__all__ = ["FinetuneSession"]


class FinetuneSession(StageSession):
    """What the stages of one run share, for runs that may use the fine-tuned LLM."""

    @cached_property
    def finetuned(self) -> FinetunedLLM:
        """The LLM fine-tuned on the split, or on another dataset (``finetune_from``); weights load with the first vector."""
        # transformers, peft and bitsandbytes: most of the start-up time of runs that fine-tune nothing.
        from recbole_hnlm.finetune.transferred import finetuned_llm  # noqa: PLC0415

        return finetuned_llm(self.context, lambda: item_text_vectors(self))
