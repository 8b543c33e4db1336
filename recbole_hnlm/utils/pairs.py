"""Pairs of a user and an item: read from a split, as a sparse matrix, and looked up among known ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PairSet", "pair_matrix", "pairs_of"]


def pairs_of(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Internal ids of the users and items of one of RecBole's splits, int64 ``[P]`` each."""
    users, items = (torch.as_tensor(dataset.inter_feat[field]).long() for field in (dataset.uid_field, dataset.iid_field))
    return users, items


def pair_matrix(users: NDArray[np.int64], items: NDArray[np.int64], shape: tuple[int, int]) -> sp.csr_matrix:
    """Return a float32 matrix ``[U, I]`` with 1 at each pair of ids (``[P]`` each), once where a pair is repeated."""
    matrix = sp.csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


class PairSet:
    """A set of (user, item) pairs of internal ids, 8 bytes each: sorted integer keys and a binary search, on any device.

    Symbols: P pairs; I items including the padding id 0.
    """

    def __init__(self, users: torch.Tensor, items: torch.Tensor, n_items: int) -> None:
        """Index the pairs.

        Args:
            users: int64 ``[P]``; pairs may be repeated.
            items: int64 ``[P]``, each below ``n_items``.
            n_items: I.
        """
        self._n_items = n_items
        self._keys = torch.unique(users * n_items + items)  # sorted

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Say which pairs are in the set, bool of the shape to which the int64 ids broadcast, on their device."""
        wanted = users * self._n_items + items
        if len(self._keys) == 0:
            return torch.zeros_like(wanted, dtype=torch.bool)
        self._keys = self._keys.to(wanted.device)
        places = torch.searchsorted(self._keys, wanted).clamp_max(len(self._keys) - 1)
        return self._keys[places] == wanted
