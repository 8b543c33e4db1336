"""Access to what the LLM side made, during training: rows of the pair store and the text vectors of users and items.

Symbols: M rows of a batch with a vector, H the dimension of pair vectors, T that of the text encoder, U users, I items.
Nothing here is a module: tables are neither copied with a model, nor checkpointed, nor broadcast.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.semantics import SemanticVectors
    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["PairVectorReader", "TextTables", "mean_item_vectors"]

_USERS_PER_CHUNK = 4096
# Stores up to this size may become resident; memory must not grow with larger ones.
_RESIDENT_MAX_BYTES = 64 * 2**20


class PairVectorReader:
    """Read rows of the memory-mapped store of z_ui, without making the store resident in this process.

    Indexing a large map touches a window of pages around every row: slow, and soon the whole store counts as this process's
    memory. Rows of large stores are therefore read from the map's file into place, through the system's page cache.
    """

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        """Read from ``vectors [N, H]``, any array; small ones and those without a file behind them are indexed."""
        self._vectors = vectors
        self.dim = int(vectors.shape[1])
        self._file, self._start = _file_behind(vectors) if vectors.nbytes > _RESIDENT_MAX_BYTES else (None, 0)

    def __deepcopy__(self, memo: object) -> PairVectorReader:
        """Return itself: a copied model reads the same store."""
        return self

    def gather(self, rows: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        """Return the vectors of ``rows`` (int64 ``[M]``, all >= 0) as float32 ``[M, H]`` on ``device``.

        Raises:
            ArtifactError: if the file ends before a row does.
        """
        wanted = rows.numpy()
        if self._file is None:
            return torch.from_numpy(self._vectors[wanted]).to(device).float()
        out = np.empty((len(wanted), self.dim), dtype=self._vectors.dtype)
        width, target, descriptor = out.strides[0], out.data.cast("B"), self._file.fileno()
        for place, offset in enumerate((wanted * width + self._start).tolist()):
            if os.preadv(descriptor, [target[place * width : (place + 1) * width]], offset) != width:
                raise ArtifactError(
                    f"the store {self._file.name} ends before row {wanted[place]}, expected {len(self._vectors)} rows; "
                    f"it was cut short while in use, build it again"
                )
        return torch.from_numpy(out).to(device).float()


def _file_behind(array: NDArray[np.float16]) -> tuple[BinaryIO | None, int]:
    """Return the file that ``array`` maps and the byte at which the array starts in it; (None, 0) where there is none."""
    root: Any = array
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if root is None or root.filename is None or not array.flags.c_contiguous or not hasattr(os, "preadv"):
        return None, 0
    # numpy maps from the page boundary below the offset that it was given.
    mapped_from = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY
    base_address = np.frombuffer(root.base, dtype=np.uint8).ctypes.data
    return Path(root.filename).open("rb", buffering=0), mapped_from + array.ctypes.data - base_address


def mean_item_vectors(
    training: TrainingInteractions, item_vectors: NDArray[np.floating[Any]], item_mask: NDArray[np.bool_]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Describe each user by the mean of the vectors of the distinct training items that have one.

    Args:
        training: the training interactions.
        item_vectors: floating ``[I, T]``.
        item_mask: bool ``[I]``; vectors of other items are not read.

    Returns:
        Means, computed in float32 and of the type of ``item_vectors``, ``[U, T]`` (zero where there is none), and which
        users have one, bool ``[U]``.
    """
    kept = item_mask[training.items]
    pairs = (training.users[kept], training.items[kept])
    ones = np.ones(len(pairs[0]), dtype=np.float32)
    by_user = sp.csr_matrix((ones, pairs), shape=(training.n_users, training.n_items))
    by_user.sum_duplicates()
    by_user.data[:] = 1.0
    counts = np.diff(by_user.indptr)
    means = np.zeros((training.n_users, item_vectors.shape[1]), dtype=item_vectors.dtype)
    full = item_vectors.astype(np.float32, copy=False)
    for start in range(0, training.n_users, _USERS_PER_CHUNK):
        part = slice(start, start + _USERS_PER_CHUNK)
        means[part] = by_user[part] @ full / np.maximum(counts[part], 1)[:, None]
    return means, counts > 0


class TextTables:
    """Text vectors of items and users on the training device, with the masks of who has one.

    They keep the type in which they come, float16 from the stores, since they stay in memory for the whole training; readers
    turn the rows that they take into float32.

    Attributes:
        item_vectors: float16 or float32 ``[I, T]``.
        item_mask: bool ``[I]``.
        user_vectors: of the same type ``[U, T]``: profiles where ``alignment_source`` is ``profile``, else means over
            the user's items.
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

        Raises:
            ArtifactError: ``source`` is ``profile`` and the users' vectors are absent.
        """
        if vectors.item_vectors is None or vectors.item_mask is None:
            raise ValueError("item_vectors and item_mask are needed")
        if source == "profile":
            if vectors.user_vectors is None or vectors.user_mask is None:
                raise ArtifactError(
                    "alignment_source is profile, but the training data carries no vectors of user profiles; build them with "
                    "recbole-hnlm encode --alignment_source=profile, or use --alignment_source=text"
                )
            user_vectors, user_mask = vectors.user_vectors, vectors.user_mask
        else:
            user_vectors, user_mask = mean_item_vectors(training, vectors.item_vectors, vectors.item_mask)
        self.dim = int(vectors.item_vectors.shape[1])
        self.item_vectors = torch.as_tensor(np.ascontiguousarray(vectors.item_vectors)).to(device)
        self.item_mask = torch.as_tensor(np.array(vectors.item_mask, dtype=np.bool_)).to(device)
        self.user_vectors = torch.as_tensor(np.ascontiguousarray(user_vectors)).to(device)
        self.user_mask = torch.as_tensor(np.array(user_mask, dtype=np.bool_)).to(device)

    def cosines(self, users: torch.Tensor) -> torch.Tensor:
        """Return the cosines of users (int64 ``[n]``) to every item, float32 ``[n, I]``; 0 where either has no text."""
        own = F.normalize(self.user_vectors[users].float(), dim=1) * self.user_mask[users, None]
        theirs = F.normalize(self.item_vectors.float(), dim=1) * self.item_mask[:, None]
        return own @ theirs.t()
