"""Stage ``encode``: the vectors of every kind that is wanted, by the text encoder or the fine-tuned LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from recbole_hnlm.data.store_format import StoreKind
from recbole_hnlm.finetune.vectors import ensure_finetuned_store
from recbole_hnlm.stages.base import NO_ROUTE
from recbole_hnlm.stages.encode import ensure_text_store
from recbole_hnlm.stages.kinds import is_finetuned_kind, store_folder
from recbole_hnlm.stages.planning import StagePlan
from recbole_hnlm.stages.report import StageCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.finetune.session import FinetuneSession
    from recbole_hnlm.stages.planning import Planner

__all__ = ["STAGE"]


class EncodeStage:
    """The stage; what each part does says :class:`recbole_hnlm.stages.base.Stage`."""

    name = "encode"

    def feeds(self, settings: HNLMSettings) -> tuple[StoreKind, ...]:
        """Every kind."""
        return get_args(StoreKind)

    def reads(self, settings: HNLMSettings) -> tuple[str, ...]:
        """What the stages wrote that feed the kinds."""
        return ()

    def refusal(self, settings: HNLMSettings, kinds: Sequence[StoreKind]) -> str | None:
        """Something must read vectors."""
        if kinds:
            return None
        if settings.negative_route == "none":
            return NO_ROUTE
        return "mix_weight, contrast_weight and alignment_weight are all 0; raise one of them"

    def run(self, session: FinetuneSession) -> StageCounts:
        """Make or reuse the stores and leave them opened in ``session.stores``."""
        session.release_backend()
        total = StageCounts()
        for kind in session.kinds:
            if is_finetuned_kind(session.context.settings, kind):
                folder = store_folder(session.context, kind)
                session.stores[kind], counts = ensure_finetuned_store(session.finetuned, kind, folder)
            else:
                session.stores[kind], counts = ensure_text_store(session, kind)
            total += counts
        return total

    def plan(self, planner: Planner) -> StagePlan:
        """The text encoder's work is small, and the fine-tuned LLM's is part of the plan of ``finetune``."""
        return StagePlan()


STAGE = EncodeStage()
