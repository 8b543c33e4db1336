"""What a model reads of the LLM stages, whatever the keys; the settings combine it with the keys."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SemanticNeeds"]


@dataclass(frozen=True)
class SemanticNeeds:
    """A model's declaration, its class attribute ``needs``. What it leaves out is not built for it.

    Attributes:
        pairs: it learns from hard negatives z_ui, at the strength that ``mix_weight``, ``contrast_weight`` and
            ``semantic_candidates`` give them.
        alignment: it aligns embeddings with text vectors of users and items, at ``alignment_weight``.
        texts: it learns from text vectors of users and items at any setting.
        ranks_with_texts: its own scores read them too, so that it cannot rank without them.
        texts_of_items_alone: of the texts it reads those of items, and nothing that is written of users.
    """

    pairs: bool = False
    alignment: bool = False
    texts: bool = False
    ranks_with_texts: bool = False
    texts_of_items_alone: bool = False

    @property
    def reads_texts(self) -> bool:
        """Whether it reads texts at any setting."""
        return self.texts or self.ranks_with_texts
