"""How often a negative sampler picks an item that the user liked: a diagnostic that training never reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FalseNegativeCounter"]


class FalseNegativeCounter:
    """Counts, epoch by epoch, the negatives that are interactions of the validation or test split.

    Only the trainer holds it: the model reports the items that it chose and gets nothing back, so nothing that is held out can
    reach the loss. With a random split the expected rate of uniform negatives is a user's held-out items over the items it did
    not interact with in training.

    Attributes:
        rates: share in [0, 1] of the negatives of each finished epoch.
    """

    def __init__(self, held_out: torch.Tensor, n_items: int) -> None:
        """Index the held-out pairs.

        Args:
            held_out: user and item ids, int64 ``[P, 2]``; a pair may be repeated.
            n_items: I, the padding id included.
        """
        self._n_items = n_items
        self._keys = torch.unique(held_out[:, 0] * n_items + held_out[:, 1])  # sorted
        self._seen = 0
        self._found: torch.Tensor | int = 0
        self.rates: list[float] = []

    @classmethod
    def of_splits(cls, datasets: Iterable[Any]) -> FalseNegativeCounter:
        """Take the interactions of RecBole's datasets of the validation and test splits, which must share their ids."""
        pairs, n_items = [], 0
        for dataset in datasets:
            users, items = (dataset.inter_feat[field] for field in (dataset.uid_field, dataset.iid_field))
            pairs.append(torch.stack([torch.as_tensor(users), torch.as_tensor(items)], dim=1).long())
            n_items = int(dataset.item_num)
        return cls(torch.cat(pairs), n_items)

    def __call__(self, users: torch.Tensor, negatives: torch.Tensor) -> None:
        """Count a batch: user ids and the chosen items, int64 ``[B]`` each, on any device."""
        if len(self._keys) == 0:
            self._seen += len(users)
            return
        self._keys = self._keys.to(users.device)
        keys = users * self._n_items + negatives
        places = torch.searchsorted(self._keys, keys).clamp_max(len(self._keys) - 1)
        # Stays on the device until the epoch ends: a number per batch would make a GPU wait.
        self._found = self._found + (self._keys[places] == keys).sum()
        self._seen += len(users)

    def end_epoch(self) -> float | None:
        """Close the epoch and return its rate; None where no negative was seen."""
        seen, found = self._seen, int(self._found)
        self._seen, self._found = 0, 0
        if seen == 0:
            return None
        self.rates.append(found / seen)
        return self.rates[-1]
