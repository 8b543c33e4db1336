"""Which kinds of vectors training and scoring read, and where the store of each lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.stages.context import StageContext

__all__ = ["is_finetuned_kind", "item_kind", "kinds_for_scoring", "kinds_needed", "ranking_kind", "store_folder"]


_TEXT_KINDS: dict[str, tuple[StoreKind, ...]] = {
    "text": ("item_texts",),
    "profile": ("item_profiles", "user_profiles"),
    "finetuned": ("finetuned_items",),
}


def item_kind(settings: HNLMSettings) -> StoreKind:
    """Kind of vectors that stand for the items' texts in training (``alignment_source``)."""
    return _TEXT_KINDS[settings.alignment_source][0]


def ranking_kind(settings: HNLMSettings) -> StoreKind | None:
    """Kind of vectors that stand for the items' texts in the ranking (``text_score_source``); None without ``text_score``."""
    return None if settings.text_score == "none" else _TEXT_KINDS[settings.text_score_source][0]


def kinds_needed(settings: HNLMSettings) -> tuple[StoreKind, ...]:
    """Kinds of vectors that training reads under these settings.

    The items' side of ``pairs`` comes with them, ``item_texts`` or ``finetuned_items``: ``recbole-hnlm show`` uses it to
    name the real items nearest to a hard negative.
    """
    kinds: set[StoreKind] = set(_text_kinds(settings) if settings.reads_text_vectors else ())
    kinds |= set(kinds_for_scoring(settings))
    if settings.uses_pair_vectors or settings.uses_semantic_candidates:
        kinds |= {"pairs", "finetuned_items" if settings.negative_route == "finetuned" else "item_texts"}
    return _in_order(kinds)


def kinds_for_scoring(settings: HNLMSettings) -> tuple[StoreKind, ...]:
    """Kinds of vectors that ranking items with a trained model reads: none of the hard negatives', seldom any of the texts'."""
    kinds = set(_text_kinds(settings) if settings.model_ranks_with_texts else ())
    in_ranking = ranking_kind(settings)
    return _in_order(kinds if in_ranking is None else kinds | {in_ranking})


def _text_kinds(settings: HNLMSettings) -> tuple[StoreKind, ...]:
    """Kinds of the texts of ``alignment_source``, the items' first."""
    kinds = _TEXT_KINDS[settings.alignment_source]
    return kinds if settings.reads_texts_of_users else kinds[:1]


def _in_order(kinds: Collection[StoreKind]) -> tuple[StoreKind, ...]:
    """The kinds in the order in which they are made."""
    order: tuple[StoreKind, ...] = ("item_texts", "pairs", "item_profiles", "user_profiles", "finetuned_items")
    return tuple(kind for kind in order if kind in kinds)


def is_finetuned_kind(settings: HNLMSettings, kind: StoreKind) -> bool:
    """Whether vectors of this kind come from the fine-tuned LLM rather than from the text encoder."""
    return kind == "finetuned_items" or (kind == "pairs" and settings.negative_route == "finetuned")


def store_folder(context: StageContext, kind: StoreKind) -> Path:
    """Folder of the store of one kind; the routes keep their pairs apart."""
    name = "finetuned_pairs" if kind == "pairs" and is_finetuned_kind(context.settings, kind) else kind
    return context.split_artifacts / "vectors" / name
