"""Which kinds of vectors training reads, and where the store of each lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.stages.context import StageContext

__all__ = ["is_finetuned_kind", "kinds_needed", "store_folder"]


def kinds_needed(settings: HNLMSettings) -> tuple[StoreKind, ...]:
    """Kinds of vectors that training reads under these settings.

    The items' side of ``pairs`` comes with them, ``item_texts`` or ``finetuned_items``: by it ``recbole-hnlm show`` names the
    real items nearest to a hard negative.
    """
    kinds: list[StoreKind] = []
    finetuned_pairs = settings.uses_pair_vectors and settings.negative_route == "finetuned"
    text_pairs = settings.uses_pair_vectors and not finetuned_pairs
    if text_pairs or (settings.reads_text_vectors and settings.alignment_source == "text"):
        kinds.append("item_texts")
    if settings.uses_pair_vectors or settings.uses_semantic_candidates:
        kinds.append("pairs")
    if settings.reads_text_vectors and settings.alignment_source == "profile":
        kinds += ["item_profiles", "user_profiles"]
    if (
        finetuned_pairs
        or settings.uses_semantic_candidates
        or (settings.reads_text_vectors and settings.alignment_source == "finetuned")
    ):
        kinds.append("finetuned_items")
    return tuple(kinds)


def is_finetuned_kind(settings: HNLMSettings, kind: StoreKind) -> bool:
    """Whether vectors of this kind come from the fine-tuned LLM rather than from the text encoder."""
    return kind == "finetuned_items" or (kind == "pairs" and settings.negative_route == "finetuned")


def store_folder(context: StageContext, kind: StoreKind) -> Path:
    """Folder of the store of one kind; the routes keep their pairs apart."""
    name = "finetuned_pairs" if kind == "pairs" and is_finetuned_kind(context.settings, kind) else kind
    return context.split_artifacts / "vectors" / name
