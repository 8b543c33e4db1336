"""What the LLM stages hand to training: vectors, aligned with RecBole's internal ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["SemanticVectors", "TextTables", "attach_vectors", "mean_item_vectors", "vectors_of"]

_USERS_PER_CHUNK = 4096


@dataclass(frozen=True)
class SemanticVectors:
    """Vectors from the LLM side, ready for look-up by internal id or by training row.

    Symbols: P training interactions, N vectors in the pair store, H their dimension, U users and I items including the
    padding id 0, T the dimension of the text encoder.

    RecBole builds a model and a loader from its configuration and its dataset alone, so the object travels with the training
    dataset (:func:`attach_vectors`). It is never part of an ``nn.Module``, so that it is neither copied, nor checkpointed, nor
    broadcast.

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
        ranking_vectors: vectors of the items' texts that the ranking reads, as ``item_vectors``; None when it reads none.
        ranking_mask: which items have one, bool ``[I]``; None with ``ranking_vectors``.
    """

    pair_vectors: NDArray[np.float16]
    pair_rows: NDArray[np.int64]
    item_vectors: NDArray[np.floating[Any]] | None = None
    item_mask: NDArray[np.bool_] | None = None
    user_vectors: NDArray[np.floating[Any]] | None = None
    user_mask: NDArray[np.bool_] | None = None
    pair_items: NDArray[np.int32] | None = None
    ranking_vectors: NDArray[np.floating[Any]] | None = None
    ranking_mask: NDArray[np.bool_] | None = None

    @property
    def dim(self) -> int:
        """Dimension H of the pair vectors."""
        return int(self.pair_vectors.shape[1])

    @property
    def coverage(self) -> float:
        """Share of training interactions that have a vector, in [0, 1]."""
        return float(np.mean(self.pair_rows >= 0)) if len(self.pair_rows) else 0.0


def attach_vectors(dataset: Any, vectors: SemanticVectors | None) -> None:
    """Let RecBole's training dataset carry the vectors; None takes away what it carried."""
    dataset.semantic_vectors = vectors


def vectors_of(dataset: Any) -> SemanticVectors | None:
    """Return the vectors that RecBole's training dataset carries, if any."""
    vectors: SemanticVectors | None = getattr(dataset, "semantic_vectors", None)
    return vectors


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
    by_user = pair_matrix(training.users[kept], training.items[kept], (training.n_users, training.n_items))
    counts = np.diff(by_user.indptr)
    means = np.zeros((training.n_users, item_vectors.shape[1]), dtype=item_vectors.dtype)
    full = item_vectors.astype(np.float32, copy=False)
    for start in range(0, training.n_users, _USERS_PER_CHUNK):
        part = slice(start, start + _USERS_PER_CHUNK)
        means[part] = by_user[part] @ full / np.maximum(counts[part], 1)[:, None]
    return means, counts > 0


class TextTables:
    """Text vectors of items and users on the training device, with masks that say who has one.

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
        """Take the items' vectors, and make the users' from their profiles or their training items.

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
