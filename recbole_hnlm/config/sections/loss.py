"""The loss: semantic negatives, alignment with texts, ranking."""

from __future__ import annotations

from typing import Literal

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import LLM_ROUTES, AtLeastOne, NonNegative, Positive, Section, Share

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
        Reader.OURS,
        description="Text side of the alignment: items' own text, the LLM's profiles, or the fine-tuned LLM's representation "
        "of items (users: mean of their items, but for profiles).",
    )
    alignment_max_batch: AtLeastOne = key(
        1024,
        Affects.TRAINING,
        Reader.SEMANTIC,
        description="Unique users and items of a batch that enter the alignment at most.",
    )
    rank_loss: Literal["bpr", "hinge"] = key("bpr", Affects.TRAINING, Reader.OURS, description="Ranking loss.")
    margin: NonNegative = key(
        0.3, Affects.TRAINING, Reader.OURS, when={"rank_loss": ("hinge",)}, description="Margin of the hinge loss."
    )
    projector_hidden_size: AtLeastOne = key(
        128, Affects.TRAINING, Reader.SEMANTIC, description="Hidden width of the projector f from text to CF space."
    )
    projector_learning_rate: Positive | None = key(
        None, Affects.TRAINING, Reader.SEMANTIC, description="Learning rate of the projector; null uses learning_rate."
    )
