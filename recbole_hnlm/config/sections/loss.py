"""The loss: semantic negatives, alignment with texts, ranking."""

from __future__ import annotations

from typing import Literal

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import LLM_ROUTES, SHARED_NEGATIVES, AtLeastOne, NonNegative, Positive, Section, Share

__all__ = ["LossKeys"]


class LossKeys(Section):
    """Weights and temperatures of the loss, and the projector."""

    mix_weight: Share = key(
        0.01,
        Affects.TRAINING,
        Reader.SEMANTIC,
        when=LLM_ROUTES,
        off=(0,),
        description="Share a of the semantic vector in the mixed negative a*h + (1-a)*e_j.",
    )
    contrast_weight: NonNegative = key(
        0.001,
        Affects.TRAINING,
        Reader.SEMANTIC,
        when=LLM_ROUTES,
        off=(0,),
        description="Weight of the contrast term that pushes e_u from h_ui.",
    )
    contrast_temperature: Positive = key(
        0.2, Affects.TRAINING, Reader.SEMANTIC, when=LLM_ROUTES, description="Temperature of the contrast term."
    )
    alignment_weight: NonNegative = key(
        0.003,
        Affects.TRAINING,
        Reader.SEMANTIC,
        off=(0,),
        description="Weight of the two-way alignment of CF and text embeddings.",
    )
    alignment_temperature: Positive = key(
        0.2, Affects.TRAINING, Reader.SEMANTIC, description="Temperature of the alignment term."
    )
    alignment_source: Literal["text", "profile", "finetuned"] = key(
        "text",
        Affects.REPLIES | Affects.VECTORS | Affects.TRAINING | Affects.EVALUATION,
        Reader.TEXT_MODELS,
        description="Text side of the alignment: items' own text, the LLM's profiles, or the fine-tuned LLM's representation "
        "of items (users: mean of their items, but for profiles).",
    )
    alignment_max_batch: AtLeastOne = key(
        1024,
        Affects.TRAINING,
        Reader.SEMANTIC,
        description="Unique users and items of a batch that enter the alignment at most.",
    )
    rank_loss: Literal["bpr", "hinge", "softmax", "bsl", "psl", "sl_at_k"] = key(
        "bpr",
        Affects.TRAINING,
        Reader.OURS,
        description="Ranking loss: of a pair (bpr, hinge) or of a positive against many shared negatives (softmax, bsl, psl, "
        "sl_at_k).",
    )
    margin: NonNegative = key(
        0.3, Affects.TRAINING, Reader.OURS, when={"rank_loss": ("hinge",)}, description="Margin of the hinge loss."
    )
    loss_score: Literal["cosine", "inner"] = key(
        "cosine",
        Affects.TRAINING,
        Reader.OURS,
        when=SHARED_NEGATIVES,
        description="Score in a loss of shared negatives: cosine or inner product.",
    )
    loss_temperature: Positive = key(
        0.15,
        Affects.TRAINING,
        Reader.OURS,
        when=SHARED_NEGATIVES,
        description="Temperature of the sum over the shared negatives.",
    )
    loss_negatives: AtLeastOne = key(
        512,
        Affects.TRAINING,
        Reader.OURS,
        when=SHARED_NEGATIVES,
        description="M uniform items, drawn anew in every step, that all rows of a batch share as negatives.",
    )
    loss_hard_weight: NonNegative = key(
        1.0,
        Affects.TRAINING,
        Reader.OURS,
        when=SHARED_NEGATIVES,
        description="Weight of the negative that negative_sampler chose, one further term of the sum; 0 leaves it out.",
    )
    loss_positive_temperature: Positive = key(
        0.15,
        Affects.TRAINING,
        Reader.OURS,
        when={"rank_loss": ("bsl",)},
        description="Temperature of the mean over a user's positives in bsl.",
    )
    psl_surrogate: Literal["relu", "tanh", "atan"] = key(
        "relu",
        Affects.TRAINING,
        Reader.OURS,
        when={"rank_loss": ("psl",)},
        description="Function of the difference of scores that psl sums.",
    )
    loss_at_k: AtLeastOne = key(
        20, Affects.TRAINING, Reader.OURS, when={"rank_loss": ("sl_at_k",)}, description="K of sl_at_k."
    )
    loss_weight_temperature: Positive = key(
        1.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"rank_loss": ("sl_at_k",)},
        description="Temperature of the weight by which sl_at_k prefers positives among the first K.",
    )
    loss_refresh_epochs: AtLeastOne = key(
        5,
        Affects.TRAINING,
        Reader.OURS,
        when={"rank_loss": ("sl_at_k",)},
        description="Epochs between two estimates of each user's K-th score in sl_at_k.",
    )
    projector_hidden_size: AtLeastOne = key(
        128, Affects.TRAINING, Reader.SEMANTIC, description="Hidden width of the projector f from text to CF space."
    )
    projector_learning_rate: Positive | None = key(
        None, Affects.TRAINING, Reader.SEMANTIC, description="Learning rate of the projector; null uses learning_rate."
    )

    @property
    def shares_negatives(self) -> bool:
        """Whether the ranking loss sets a positive against many negatives that the batch shares."""
        return self.rank_loss in SHARED_NEGATIVES["rank_loss"]

    @property
    def reads_chosen_negative(self) -> bool:
        """Whether the ranking loss reads the negative that ``negative_sampler`` chooses."""
        return not self.shares_negatives or self.loss_hard_weight > 0

    def section_problems(self) -> list[str]:
        """SL@K looks for the K-th largest of at least K scores."""
        problems = []
        if self.rank_loss == "sl_at_k" and self.loss_at_k > self.loss_negatives:
            problems.append(f"loss_at_k is {self.loss_at_k}, expected at most loss_negatives, {self.loss_negatives}")
        return [*super().section_problems(), *problems]
