"""Counting who interacted with what, in bounded memory."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SeenPairs"]


def _distinct(values: NDArray[np.int64] | NDArray[np.uint64]) -> int:
    values.sort()
    return int(1 + np.count_nonzero(values[1:] != values[:-1])) if len(values) else 0


class SeenPairs:
    """The interactions so far: 12 bytes each, and one text per item.

    Users are remembered by a 64-bit hash (20 million of them share one with a probability of about 1e-5), since their ids
    as Python texts would take gigabytes. Hashes only feed the counts of a report, never a file.

    Attributes:
        items: items in order of appearance, to their index.
    """

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self._users = array("q")
        self._items = array("i")

    def __len__(self) -> int:
        return len(self._users)

    def extend(self, users: Sequence[str], items: Sequence[str]) -> None:
        """Remember interactions, users[n] with items[n]."""
        self._users.extend(map(hash, users))
        known = self.items
        indices = list(map(known.get, items))
        if None in indices:  # the rule at the start of a dump, rare afterwards
            indices = [known.setdefault(item, len(known)) for item in items]
        self._items.extend(cast("list[int]", indices))

    def distinct(self) -> tuple[int, int]:
        """Return the numbers of distinct users and of distinct (user, item) pairs."""
        users = np.frombuffer(self._users, dtype=np.int64)
        pairs = np.frombuffer(self._items, dtype=np.int32).astype(np.uint64)
        pairs *= np.uint64(0x9E3779B97F4A7C15)  # odd: distinct items stay distinct, spread over all bits
        pairs ^= users.view(np.uint64)
        return _distinct(users.copy()), _distinct(pairs)
