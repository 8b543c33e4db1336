"""How a trained model is evaluated."""

from __future__ import annotations

from typing import Literal

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import AtLeastOne, NonNegative, Positive, Section

__all__ = ["EvaluationKeys"]

_WITH_TEXTS = {"text_score": ("mean", "kernel")}


class EvaluationKeys(Section):
    """Ranking of all items."""

    eval_users_per_batch: AtLeastOne = key(
        256,
        Affects.NOTHING,
        Reader.EVERY_RUN,
        description="Users scored together in full ranking when eval_batch_size is not given.",
    )
    score: Literal["auto", "inner", "cosine"] = key(
        "auto",
        Affects.EVALUATION,
        Reader.OURS,
        off=("auto", "inner"),
        description="Score by which items are ranked: inner product, cosine, or (auto) the one that the ranking loss reads.",
    )
    text_score: Literal["none", "mean", "kernel"] = key(
        "none",
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        off=("none",),
        description="Texts in the ranking of any model: not at all, by the cosine to the mean of a user's training items, or "
        "by a kernel over them.",
    )
    text_score_weight: NonNegative | Literal["auto"] = key(
        "auto",
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        when=_WITH_TEXTS,
        description="Weight of the texts' standardised score when it is added to the model's; auto chooses it on validation "
        "once training has ended.",
    )
    text_score_source: Literal["text", "profile", "finetuned"] = key(
        "text",
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        when=_WITH_TEXTS,
        description="What is read of items in the ranking: their own text, the LLM's profiles, or the fine-tuned LLM's "
        "representation.",
    )
    text_kernel_temperature: Positive = key(
        0.2,
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        when={"text_score": ("kernel",)},
        description="Temperature of the kernel between items' texts.",
    )
    fuse_with: list[str] = key(
        [],
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        place=True,
        off=([],),
        description="Other models whose standardised scores are added to the ranking: checkpoints, or names of models, which "
        "are trained first.",
    )
    fuse_weight: NonNegative | Literal["auto"] = key(
        "auto",
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        off=("auto",),
        description="Weight of each of them; auto chooses one for each on validation once training has ended.",
    )
    text_metric: Literal["none", "learned"] = key(
        "none",
        Affects.EVALUATION,
        Reader.EVERY_RUN,
        when=_WITH_TEXTS,
        off=("none",),
        description="Metric of the texts in the ranking: none (as encoded), or learned from which items the same users have in "
        "training.",
    )

    def section_problems(self) -> list[str]:
        """A weight needs something that it weighs."""
        problems = super().section_problems()
        if self.fuse_weight != "auto" and not self.fuse_with:
            problems.append("fuse_weight has no effect here: it is read with fuse_with, which names no model")
        return problems
