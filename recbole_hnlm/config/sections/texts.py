"""Text columns, and the vectors that the text encoder makes of texts."""

from __future__ import annotations

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import LLM_ROUTES, AtLeastOne, Section

__all__ = ["TextKeys", "VectorKeys"]


class TextKeys(Section):
    """Columns with text, and how much of it a prompt quotes."""

    title_field: str | None = key(
        None, Affects.REPLIES | Affects.VECTORS, Reader.TEXTS, description="Column of .item with an item's title; null guesses."
    )
    categories_field: str | None = key(
        None,
        Affects.REPLIES | Affects.VECTORS,
        Reader.TEXTS,
        description="Column of .item with an item's categories; null guesses.",
    )
    city_field: str | None = key(
        None, Affects.REPLIES | Affects.VECTORS, Reader.TEXTS, description="Column of .item with an item's city; null guesses."
    )
    description_field: str | None = key(
        None,
        Affects.REPLIES | Affects.VECTORS,
        Reader.TEXTS,
        description="Column of .item with an item's description; null guesses.",
    )
    review_field: str | None = key(
        None,
        Affects.REPLIES,
        Reader.TEXTS,
        when=LLM_ROUTES,
        description="Column of .inter with the user's review; null guesses.",
    )
    description_max_chars: AtLeastOne = key(
        400,
        Affects.REPLIES | Affects.QUOTES | Affects.VECTORS,
        Reader.TEXTS,
        description="Characters of a description that a prompt may quote.",
    )
    review_max_chars: AtLeastOne = key(
        200,
        Affects.REPLIES | Affects.QUOTES,
        Reader.TEXTS,
        when=LLM_ROUTES,
        description="Characters of a review that a prompt may quote.",
    )


class VectorKeys(Section):
    """The text encoder."""

    text_encoder: str = key(
        "minilm",
        Affects.VECTORS,
        Reader.TEXTS,
        place=True,
        description="minilm (embedded), a folder, or a hub id for sentence-transformers.",
    )
    encoder_batch_size: AtLeastOne = key(128, Affects.NOTHING, Reader.TEXTS, description="Texts that are encoded together.")
