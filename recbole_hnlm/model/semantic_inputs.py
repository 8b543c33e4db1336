"""Access to what the LLM side made, during training: rows of the pair store and the text vectors of users and items.

Symbols: M rows of a batch with a vector, H the dimension of pair vectors, T that of the text encoder, U users, I items.
Nothing here is a module: tables are neither copied with a model, nor checkpointed, nor broadcast.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.semantics import SemanticVectors
    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["PairVectorReader", "TextTables", "mean_item_vectors"]

_USERS_PER_CHUNK = 4096
_ROWS_PER_CHUNK = 1024
# Stores up to this size may stay mapped; larger ones give their pages back, so that memory does not grow with the store.
_RESIDENT_MAX_BYTES = 64 * 2**20


class PairVectorReader:
    """Read rows of the memory-mapped store of z_ui, without ever making much of it resident in this process."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        """Read from ``vectors [N, H]``, any array; memory-mapped ones give their pages back after use."""
        self._vectors = vectors
        self.dim = int(vectors.shape[1])
        self._mapping = _mapping_of(vectors) if vectors.nbytes > _RESIDENT_MAX_BYTES else None

    def gather(self, rows: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        """Return the vectors of ``rows`` (int64 ``[M]``, all >= 0) as float32 ``[M, H]`` on ``device``."""
        wanted = rows.numpy()
        out = np.empty((len(wanted), self.dim), dtype=self._vectors.dtype)
        for start in range(0, len(wanted), _ROWS_PER_CHUNK):
            part = slice(start, start + _ROWS_PER_CHUNK)
            out[part] = self._vectors[wanted[part]]
            if self._mapping is not None:
                # Each touched row maps a window of neighbouring pages; given back, they stay in the system's page cache
                # and cost a minor fault next time.
                self._mapping.madvise(mmap.MADV_DONTNEED)
        return torch.from_numpy(out).to(device).float()


def _mapping_of(array: NDArray[np.float16]) -> mmap.mmap | None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None


def mean_item_vectors(
    training: TrainingInteractions, item_vectors: NDArray[np.float32], item_mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Describe each user by the mean of the vectors of the distinct training items that have one.

    Args:
        training: the training interactions.
        item_vectors: float32 ``[I, T]``.
        item_mask: bool ``[I]``; vectors of other items are not read.

    Returns:
        Means, float32 ``[U, T]`` (zero where there is none), and which users have one, bool ``[U]``.
    """
    kept = item_mask[training.items]
    pairs = (training.users[kept], training.items[kept])
    ones = np.ones(len(pairs[0]), dtype=np.float32)
    by_user = sp.csr_matrix((ones, pairs), shape=(training.n_users, training.n_items))
    by_user.sum_duplicates()
    by_user.data[:] = 1.0
    counts = np.diff(by_user.indptr)
    means = np.zeros((training.n_users, item_vectors.shape[1]), dtype=np.float32)
    for start in range(0, training.n_users, _USERS_PER_CHUNK):
        part = slice(start, start + _USERS_PER_CHUNK)
        means[part] = by_user[part] @ item_vectors / np.maximum(counts[part], 1)[:, None]
    return means, counts > 0


class TextTables:
    """Text vectors of items and users on the training device, with the masks of who has one.

    Attributes:
        item_vectors: float32 ``[I, T]``.
        item_mask: bool ``[I]``.
        user_vectors: float32 ``[U, T]``: profiles where ``alignment_source`` is ``profile``, else means over the user's items.
        user_mask: bool ``[U]``.
        dim: T.
    """

    def __init__(self, vectors: SemanticVectors, training: TrainingInteractions, source: str, device: torch.device) -> None:
        """Take the items' vectors, and the users' from their profiles or from their training items.

        Args:
            vectors: with ``item_vectors`` and ``item_mask``; with ``user_vectors`` and ``user_mask`` for ``profile``.
            training: the training interactions.
            source: the key ``alignment_source``.
            device: where the tables go.
        """
        if vectors.item_vectors is None or vectors.item_mask is None:
            raise ValueError("item_vectors and item_mask are needed")
        if source == "profile" and vectors.user_vectors is not None and vectors.user_mask is not None:
            user_vectors, user_mask = vectors.user_vectors, vectors.user_mask
        else:
            user_vectors, user_mask = mean_item_vectors(training, vectors.item_vectors, vectors.item_mask)
        self.dim = int(vectors.item_vectors.shape[1])
        self.item_vectors = torch.as_tensor(np.ascontiguousarray(vectors.item_vectors, dtype=np.float32)).to(device)
        self.item_mask = torch.as_tensor(np.array(vectors.item_mask, dtype=np.bool_)).to(device)
        self.user_vectors = torch.as_tensor(np.ascontiguousarray(user_vectors, dtype=np.float32)).to(device)
        self.user_mask = torch.as_tensor(np.array(user_mask, dtype=np.bool_)).to(device)
