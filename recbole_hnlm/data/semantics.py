"""What the LLM stages hand to training: vectors, aligned with RecBole's internal ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SemanticVectors"]


@dataclass(frozen=True)
class SemanticVectors:
    """Vectors from the LLM side, ready for look-up by internal id or by training row.

    Symbols: P training interactions, N vectors in the pair store, H their dimension, U users and I items including the
    padding id 0, T the dimension of the text encoder.

    The object hangs on RecBole's training dataset as ``dataset.semantic_vectors`` and is never part of an ``nn.Module``,
    so that it is neither copied, nor checkpointed, nor broadcast.

    Attributes:
        pair_vectors: z_ui, float16 ``[N, H]``, a read-only memory map.
        pair_rows: row of ``pair_vectors`` of each training interaction, int64 ``[P]``; -1 where the pair has no vector.
        item_vectors: text-encoder vectors of the items' own text, float16 as stored, or float32, ``[I, T]``; None
            when no term needs them.
        item_mask: which items have a text vector, bool ``[I]``; None with ``item_vectors``.
        user_vectors: text-encoder vectors of the users' profiles, of the same type, ``[U, T]``; None when no term
            needs them.
        pair_items: items nearest to each vector of the pair store, internal ids, int32 ``[N, S]``, 0 where there is none; None
            when no candidate comes from them.
        user_mask: which users have a profile vector, bool ``[U]``; None with ``user_vectors``.
    """

    pair_vectors: NDArray[np.float16]
    pair_rows: NDArray[np.int64]
    item_vectors: NDArray[np.floating[Any]] | None = None
    item_mask: NDArray[np.bool_] | None = None
    user_vectors: NDArray[np.floating[Any]] | None = None
    user_mask: NDArray[np.bool_] | None = None
    pair_items: NDArray[np.int32] | None = None

    @property
    def dim(self) -> int:
        """Dimension H of the pair vectors."""
        return int(self.pair_vectors.shape[1])

    @property
    def coverage(self) -> float:
        """Share of training interactions that have a vector, in [0, 1]."""
        return float(np.mean(self.pair_rows >= 0)) if len(self.pair_rows) else 0.0
