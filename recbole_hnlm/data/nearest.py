"""The real items nearest to a hard-negative vector, among those that the user did not interact with in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["nearest_items"]

_ROWS_PER_BLOCK = 2048


def nearest_items(  # noqa: PLR0917 - two sides and what they leave out
    vectors: NDArray[np.floating[Any]],
    users: NDArray[np.int64],
    item_vectors: NDArray[np.floating[Any]],
    item_mask: NDArray[np.bool_],
    training: TrainingInteractions,
    count: int,
) -> NDArray[np.int32]:
    """Find the items of the largest cosine to each vector.

    Symbols: N vectors, H their dimension, I items including the padding id 0.

    Args:
        vectors: z_ui, ``[N, H]``.
        users: internal user id of each vector, ``[N]``.
        item_vectors: ``[I, H]``.
        item_mask: items that may be found, bool ``[I]``.
        training: whose interactions are left out, for each user its own.
        count: S >= 1.

    Returns:
        Internal item ids, int32 ``[N, S]``, nearest first; 0 where a user has fewer than S items left.
    """
    full = item_vectors.astype(np.float32)  # the length of a float16 vector may overflow
    norms = np.linalg.norm(full, axis=1, keepdims=True)
    units = full / np.maximum(norms, np.finfo(np.float32).tiny)
    owned = pair_matrix(training.users, training.items, (training.n_users, training.n_items))
    width = min(count, training.n_items)
    found = np.zeros((len(vectors), count), dtype=np.int32)
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        scores = np.asarray(vectors[block], dtype=np.float32) @ units.T  # [n, I]
        scores[:, ~item_mask] = -np.inf
        scores[owned[users[block]].nonzero()] = -np.inf
        top = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        values = np.take_along_axis(scores, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        top, values = (np.take_along_axis(table, order, axis=1) for table in (top, values))
        found[block, :width] = np.where(np.isfinite(values), top, 0)
    return found
