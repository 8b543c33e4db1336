"""Encoding many items or pairs: bucketed by length, batched by tokens, each user's part of the query computed once.

Symbols: N sequences, H the dimension of the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_hnlm.finetune.prompting import pad_sequences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.finetune.encoder import HardNegativeEncoder
    from recbole_hnlm.finetune.prompting import PairPrompts
    from recbole_hnlm.finetune.texts import FinetuneTexts

__all__ = ["PairOrder", "encode_items", "encode_pairs", "order_pairs", "token_batches"]


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Cut sequences, in their order, into batches of at most ``budget`` tokens with padding; a batch holds one at least.

    >>> [(part.start, part.stop) for part in token_batches([2, 2, 3, 9], 6)]
    [(0, 2), (2, 3), (3, 4)]
    """
    start, longest = 0, 0
    for place, length in enumerate(lengths):
        if place > start and max(longest, length) * (place - start + 1) > budget:
            yield slice(start, place)
            start, longest = place, 0
        longest = max(longest, length)
    if start < len(lengths):
        yield slice(start, len(lengths))


@torch.no_grad()
def encode_items(
    encoder: HardNegativeEncoder, prompts: PairPrompts, texts: FinetuneTexts, items: Sequence[int], budget: int
) -> NDArray[np.float32]:
    """Return the representations of items, float32 ``[N, H]``, in the order of ``items`` (internal ids)."""
    encoder.eval()
    sequences = [prompts.item(texts.titles[item], texts.items[item]) for item in items]
    order = sorted(range(len(items)), key=lambda place: len(sequences[place]))
    vectors = np.zeros((len(items), encoder.dim), dtype=np.float32)
    for part in token_batches([len(sequences[place]) for place in order], budget):
        places = order[part]
        batch = pad_sequences([sequences[place] for place in places], items=[items[place] for place in places])
        vectors[places] = encoder.encode(batch).cpu().numpy()
    return vectors


@dataclass(frozen=True)
class PairOrder:
    """Pairs in the order in which they are encoded.

    Attributes:
        users: internal user ids, int64 ``[N]``; a user's pairs stand together.
        items: internal item ids, int64 ``[N]``.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]


def order_pairs(prompts: PairPrompts, texts: FinetuneTexts, users: NDArray[np.int64], items: NDArray[np.int64]) -> PairOrder:
    """Order pairs by the length of the user's part, then by user, then by the length of the item's part.

    The order depends on the pairs and texts alone, so that an interrupted encoding continues where it stopped.
    """
    user_lengths, item_lengths = np.zeros(len(texts.users), dtype=np.int64), np.zeros(len(texts.titles), dtype=np.int64)
    for user in np.unique(users):
        user_lengths[user] = len(prompts.user_part(texts.users[user]))
    for item in np.unique(items):
        item_lengths[item] = len(prompts.item_part(texts.titles[item], texts.items[item]))
    order = np.lexsort((items, item_lengths[items], users, user_lengths[users]))
    return PairOrder(users[order], items[order])


@torch.no_grad()
def encode_pairs(
    encoder: HardNegativeEncoder,
    prompts: PairPrompts,
    texts: FinetuneTexts,
    pairs: PairOrder,
    budget: int,
    *,
    share: bool = True,
) -> Iterator[NDArray[np.float32]]:
    """Encode z_ui batch by batch, in the pairs' order.

    Args:
        encoder: fine-tuned.
        prompts: sequences.
        texts: texts by internal id.
        pairs: what to encode.
        budget: tokens, padding included, of a batch.
        share: compute each user's part once per batch rather than once per pair; the vectors agree up to rounding.

    Yields:
        Unit vectors, float32 ``[n, H]``, of the next n pairs.
    """
    encoder.eval()
    suffixes = [prompts.item_part(texts.titles[item], texts.items[item]) for item in pairs.items]
    prefixes = {int(user): prompts.user_part(texts.users[user]) for user in np.unique(pairs.users)}
    owners = [int(user) for user in pairs.users]
    if not share:
        whole = [prefixes[user] + suffix for user, suffix in zip(owners, suffixes, strict=True)]
        for part in token_batches([len(sequence) for sequence in whole], budget):
            batch = pad_sequences(whole[part], owners[part], pairs.items[part].tolist())
            yield encoder.encode(batch).cpu().numpy()
        return
    for part in token_batches([len(suffix) for suffix in suffixes], budget):
        distinct, places = np.unique(pairs.users[part], return_inverse=True)
        begun = pad_sequences([prefixes[int(user)] for user in distinct], distinct.tolist(), side="left")
        rest = pad_sequences(suffixes[part], owners[part], pairs.items[part].tolist())
        yield encoder.encode_shared(begun, rest, torch.from_numpy(places)).cpu().numpy()
