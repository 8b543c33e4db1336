"""How often a negative sampler picks an item that the user liked: a diagnostic that training never reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.utils.pairs import PairSet, pairs_of

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

    def __init__(self, held_out: PairSet) -> None:
        """Count what is among the held-out pairs."""
        self._held_out = held_out
        self._seen = 0
        self._found: torch.Tensor | int = 0
        self.rates: list[float] = []

    @classmethod
    def of_splits(cls, datasets: Iterable[Any]) -> FalseNegativeCounter:
        """Take the interactions of RecBole's datasets of the validation and test splits, which must share their ids."""
        splits = list(datasets)
        users, items = (torch.cat(side) for side in zip(*map(pairs_of, splits), strict=True))
        return cls(PairSet(users, items, int(splits[0].item_num)))

    def __call__(self, users: torch.Tensor, negatives: torch.Tensor) -> None:
        """Count a batch: user ids and the chosen items, int64 ``[B]`` each, on any device."""
        # Stays on the device until the epoch ends: a number per batch would make a GPU wait.
        self._found = self._found + self._held_out.contains(users, negatives).sum()
        self._seen += len(users)

    def end_epoch(self) -> float | None:
        """Close the epoch and return its rate; None where no negative was seen."""
        seen, found = self._seen, int(self._found)
        self._seen, self._found = 0, 0
        if seen == 0:
            return None
        self.rates.append(found / seen)
        return self.rates[-1]
