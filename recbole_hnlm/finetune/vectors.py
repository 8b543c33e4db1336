"""Stores of the fine-tuned LLM's vectors: z_ui of every chosen pair, and the representations of items."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_writer import VectorStoreWriter, remove_store
from recbole_hnlm.finetune.inference import PairOrder, encode_items, encode_pairs, order_pairs
from recbole_hnlm.finetune.ranks import Ranks
from recbole_hnlm.stages.report import StageCounts
from recbole_hnlm.utils.files import exclusive_writer, text_digest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.finetune.run import FinetunedLLM
    from recbole_hnlm.stages.context import StageContext

__all__ = ["ensure_finetuned_store", "finetuned_identity"]

_MERGE_ROWS = 65_536


def _keys_of(context: StageContext, kind: StoreKind) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Internal ids of what a store of the kind holds: users and items of pairs; for items the users are 0."""
    training = context.training
    if kind == "finetuned_items":
        items = np.flatnonzero(context.items_with_text)
        return np.zeros_like(items), items
    return training.users[context.chosen_rows], training.items[context.chosen_rows]


def finetuned_identity(finetuned: FinetunedLLM, kind: StoreKind) -> StoreIdentity:
    """What a store of the fine-tuned LLM's vectors must be to belong to the context; found without loading the LLM.

    Args:
        finetuned: the fine-tuned LLM.
        kind: ``pairs`` or ``finetuned_items``.
    """
    training = finetuned.context.training
    return StoreIdentity(
        kind=kind,
        model=finetuned.identity.model,
        revision=finetuned.identity.digest,
        prompt_hash=finetuned.identity.prompts,
        dataset_fingerprint=training.dataset_fingerprint,
        split_fingerprint=training.split_fingerprint,
        inputs=text_digest([np.stack(_keys_of(finetuned.context, kind)).tobytes().hex(), finetuned.texts.digest])[:32],
    )


def ensure_finetuned_store(finetuned: FinetunedLLM, kind: StoreKind, folder: Path) -> tuple[VectorStore, StageCounts]:
    """Make or reuse the store of z_ui (``pairs``) or of the items' representations (``finetuned_items``).

    Under ``torchrun`` every process encodes the pairs of its share of the users into a part; the first one merges the parts.

    Args:
        finetuned: the fine-tuned LLM.
        kind: ``pairs`` or ``finetuned_items``.
        folder: of the finished store.

    Returns:
        The opened store, and the counts of its vectors.

    Raises:
        HNLMError: the adapter is absent or damaged, a store is corrupt, or the folder cannot be written.
    """
    context, ranks = finetuned.context, Ranks.from_environment()
    users, items = _keys_of(context, kind)
    identity = finetuned_identity(finetuned, kind)
    made = 0
    if not VectorStore.has(folder, identity):
        ranks.refuse_recbole_launcher("encoding with the fine-tuned LLM", "encode")
        if ranks.count == 1:
            with exclusive_writer(folder.parent):
                if not VectorStore.has(folder, identity):
                    made = _write(finetuned, kind, folder, identity, users, items)
        else:
            made = _write_together(finetuned, kind, folder, identity, (users, items), ranks)
    return VectorStore.open(folder, identity), StageCounts(len(items), reused=len(items) - made, generated=made)


def _tables(context: StageContext, kind: StoreKind) -> list[list[str]]:
    training = context.training
    columns = (training.item_tokens,) if kind == "finetuned_items" else (training.user_tokens, training.item_tokens)
    return [[str(token) for token in column[1:]] for column in columns]


def _write(  # noqa: PLR0917
    finetuned: FinetunedLLM,
    kind: StoreKind,
    folder: Path,
    identity: StoreIdentity,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
) -> int:
    """Encode into a store; continues after what an interrupted process wrote. Returns the number of vectors made now."""
    settings, encoder = finetuned.settings, finetuned.encoder()
    prompts, texts, budget = finetuned.prompts, finetuned.texts, settings.finetune_batch_tokens
    with VectorStoreWriter(folder, identity, _tables(finetuned.context, kind), encoder.dim) as writer:
        resumed = writer.count
        if kind == "finetuned_items":
            rest = items[resumed:]
            if len(rest):
                writer.append(rest[:, None] - 1, encode_items(encoder, prompts, texts, rest.tolist(), budget))
        else:
            pairs = order_pairs(prompts, texts, users, items)
            pairs = PairOrder(pairs.users[resumed:], pairs.items[resumed:])
            shown: dict[str, Any] = {"unit": "pair", "disable": not finetuned.context.show_progress, "dynamic_ncols": True}
            with tqdm(total=len(items), initial=resumed, desc="hard-negative vectors", **shown) as bar:
                done = 0
                for vectors in encode_pairs(encoder, prompts, texts, pairs, budget, share=settings.finetune_share_prefix):
                    part = slice(done, done + len(vectors))
                    writer.append(np.stack([pairs.users[part] - 1, pairs.items[part] - 1], axis=1), vectors)
                    done = part.stop
                    bar.update(len(vectors))
        writer.finish()
    return len(items) - resumed


def _write_together(  # noqa: PLR0917
    finetuned: FinetunedLLM,
    kind: StoreKind,
    folder: Path,
    identity: StoreIdentity,
    keys: tuple[NDArray[np.int64], NDArray[np.int64]],
    ranks: Ranks,
) -> int:
    """Encode a share of the users (of the items) in each process, then merge."""
    users, items = keys

    def part(rank: int) -> tuple[Path, StoreIdentity, NDArray[np.bool_]]:
        name = f"part{rank}of{ranks.count}"
        mine = (items if kind == "finetuned_items" else users) % ranks.count == rank
        return folder.with_name(f"{folder.name}.{name}"), replace(identity, inputs=f"{identity.inputs}.{name}"), mine

    own_folder, own_identity, mine = part(ranks.rank)
    if not VectorStore.has(own_folder, own_identity):
        _write(finetuned, kind, own_folder, own_identity, users[mine], items[mine])
    ranks.wait()
    if ranks.first:
        stores = [VectorStore.open(*part(rank)[:2]) for rank in range(ranks.count)]
        with VectorStoreWriter(folder, identity, stores[0].tables, stores[0].vectors.shape[1]) as writer:
            skip = writer.count
            for store in stores:
                for start in range(0, len(store.keys), _MERGE_ROWS):
                    rows = slice(start + min(skip, _MERGE_ROWS), start + _MERGE_ROWS)
                    skip -= min(skip, len(store.keys[start : start + _MERGE_ROWS]))
                    if len(store.keys[rows]):
                        writer.append(np.array(store.keys[rows]), np.array(store.vectors[rows]))
            writer.finish()
        for rank in range(ranks.count):
            remove_store(part(rank)[0])
    ranks.wait()
    return int(mine.sum())
