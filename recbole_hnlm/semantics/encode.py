"""Stage ``encode``: the vectors of every kind that the settings need, by the text encoder or the fine-tuned LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.finetune.vectors import ensure_finetuned_store
from recbole_hnlm.stages.encode import ensure_text_store
from recbole_hnlm.stages.kinds import is_finetuned_kind, kinds_needed, store_folder
from recbole_hnlm.stages.replies import ReplyCounts

if TYPE_CHECKING:
    from recbole_hnlm.data.store import VectorStore
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.finetune.session import FinetuneSession

__all__ = ["run_encode_stage"]


def run_encode_stage(session: FinetuneSession) -> tuple[ReplyCounts, dict[StoreKind, VectorStore]]:
    """Make or reuse every store that the settings need.

    Args:
        session: supplies the text encoder and, for the fine-tuned route, the fine-tuned LLM.

    Returns:
        Counts over all kinds, and the opened stores.

    Raises:
        HNLMError: a text source is absent, a store is corrupt, the encoder cannot be loaded or the folder written.
    """
    stores: dict[StoreKind, VectorStore] = {}
    total = generated = 0
    for kind in kinds_needed(session.context.settings):
        if is_finetuned_kind(session.context.settings, kind):
            stores[kind], count, made = ensure_finetuned_store(session.finetuned, kind, store_folder(session.context, kind))
            total, generated = total + count, generated + made
            continue
        stores[kind], count, made = ensure_text_store(session, kind)
        total, generated = total + count, generated + made
    return ReplyCounts(total, total - generated, generated, 0), stores
