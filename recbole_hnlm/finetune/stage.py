"""Stage ``finetune``: the LLM is fine-tuned so that it emits the vectors of hard negatives itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recbole_hnlm.config.sections.llm import EMBEDDED_MODEL
from recbole_hnlm.finetune.evaluation import choose_heldout_users
from recbole_hnlm.stages.planning import StagePlan
from recbole_hnlm.stages.report import StageCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.finetune.session import FinetuneSession
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.planning import Planner

__all__ = ["STAGE", "PlannedFinetuning", "plan_finetuning"]

# Pairs per second of the embedded model on CPU (results/finetuned.md): 1,600 pairs in 518 s, and the bench of encoding.
_FINETUNED_PAIRS, _ENCODED_PAIRS = 3.0, 18.0
_HOUR = 3600.0


@dataclass(frozen=True)
class PlannedFinetuning:
    """Work of the fine-tuned route.

    Attributes:
        steps: steps of fine-tuning.
        pairs: pairs that fine-tuning reads.
        available: training pairs that fine-tuning may draw from.
        tokens: tokens that fine-tuning reads at most.
        pair_vectors: pairs whose z_ui is made.
        item_vectors: items whose representation is made.
        vector_tokens: tokens that making the vectors reads at most, a user's part counted for each pair.
        adapters: fine-tuned LLMs that this split already has, of these or other settings.
    """

    steps: int
    pairs: int
    available: int
    tokens: int
    pair_vectors: int
    item_vectors: int
    vector_tokens: int
    adapters: int


def plan_finetuning(context: StageContext, kinds: Sequence[StoreKind]) -> PlannedFinetuning:
    """Count the steps of fine-tuning and the vectors of these kinds. The teacher is not trained for it."""
    settings, training = context.settings, context.training
    heldout = choose_heldout_users(training, settings.finetune_heldout_users, settings.finetune_seed)
    may_draw = context.items_with_text[training.items] & ~np.isin(training.users, heldout)
    pairs = settings.finetune_steps * settings.finetune_batch_size * settings.finetune_accumulation
    pair_vectors = len(context.chosen_rows) if "pairs" in kinds else 0
    item_vectors = int(context.items_with_text.sum()) if "finetuned_items" in kinds else 0
    # An item's sequence is a query without, at least, the user's text.
    query, item = settings.finetune_max_length, max(1, settings.finetune_max_length - settings.finetune_user_tokens)
    return PlannedFinetuning(
        steps=settings.finetune_steps,
        pairs=pairs,
        available=int(may_draw.sum()),
        tokens=pairs * (query + 2 * item),
        pair_vectors=pair_vectors,
        item_vectors=item_vectors,
        vector_tokens=pair_vectors * query + item_vectors * item,
        adapters=len(list((context.split_artifacts / "finetuned").glob("*/manifest.json"))),
    )


def _text(context: StageContext, plan: PlannedFinetuning) -> str:
    """Describe the plan for the terminal."""
    settings = context.settings
    there = (
        f"; {plan.adapters} fine-tuned LLMs of this split are there, those of the same settings are reused"
        if plan.adapters
        else ""
    )
    lines = [
        f"fine-tuned route, LLM {settings.llm_model}: a teacher of {settings.teacher_epochs} epochs first{there}",
        f"  fine-tuning: {plan.steps:,} steps, {plan.pairs:,} pairs of {plan.available:,}, {plan.tokens:,} tokens at most",
        f"  vectors: {plan.pair_vectors:,} pairs and {plan.item_vectors:,} items, {plan.vector_tokens:,} tokens at most",
    ]
    if settings.llm_model == EMBEDDED_MODEL and context.device.startswith("cpu"):
        seconds = plan.pairs / _FINETUNED_PAIRS + (plan.pair_vectors + plan.item_vectors) / _ENCODED_PAIRS
        lines.append(
            f"time: about {seconds / _HOUR:.2f} hours plus the teacher, {_FINETUNED_PAIRS:.0f} pairs/s of fine-tuning (1 "
            f"core), {_ENCODED_PAIRS:.0f} vectors/s (2 cores) (stated: the embedded model, results/finetuned.md)"
        )
    else:
        lines.append(f"time: no rate is known for {settings.llm_model} on {context.device}")
    return "\n".join(lines)


class FinetuneStage:
    """The stage; what each part does says :class:`recbole_hnlm.stages.base.Stage`."""

    name = "finetune"

    def feeds(self, settings: HNLMSettings) -> tuple[StoreKind, ...]:
        """The vectors that the fine-tuned LLM emits: of items, and of pairs on its route."""
        return ("pairs", "finetuned_items") if settings.negative_route == "finetuned" else ("finetuned_items",)

    def reads(self, settings: HNLMSettings) -> tuple[str, ...]:
        """Its queries may quote profiles."""
        return ("profile",) if settings.finetune_text == "profiles" else ()

    def refusal(self, settings: HNLMSettings, kinds: Sequence[StoreKind]) -> str | None:
        """Something must read the fine-tuned LLM's vectors."""
        if set(self.feeds(settings)) & set(kinds):
            return None
        return (
            "there is nothing to fine-tune for without negative_route finetuned, and semantic_candidates, mix_weight, "
            "contrast_weight or alignment_weight (with alignment_source finetuned) above 0"
        )

    def run(self, session: FinetuneSession) -> StageCounts:
        """Fine-tune the LLM unless it was fine-tuned before; counts steps."""
        session.release_backend()
        existed = session.finetuned.exists
        steps = int(session.finetuned.ensure(show_progress=session.context.show_progress)["steps"])
        return StageCounts(steps, reused=steps) if existed else StageCounts(steps, generated=steps)

    def plan(self, planner: Planner) -> StagePlan:
        """Count the steps and the vectors."""
        return StagePlan(work=_text(planner.context, plan_finetuning(planner.context, planner.kinds)))


STAGE = FinetuneStage()
