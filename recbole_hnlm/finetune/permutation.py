"""Shuffling without a list: the order of an epoch is computed index by index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["EpochSampler", "FeistelPermutation"]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 8
_CHUNK = 8192


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014), element by element."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hashed(*words: int) -> int:
    """Hash integers, order included, to 64 bits."""
    value = 0
    for word in words:
        start = np.array([(value + _GOLDEN + word) & _MASK], dtype=np.uint64)
        value = int(_mixed(_mixed(start) ^ np.uint64(_GOLDEN))[0])
    return value


class FeistelPermutation:
    """A seeded bijection of ``range(n)``, computed for the indices that are asked for.

    An index is cut into two halves of bits, each of which is XORed in turn with a keyed hash of the other (a Feistel network
    of 8 rounds: a bijection whatever the hash); a result outside ``range(n)`` is sent through again, which ends inside because
    the walk is a cycle that began inside. The domain is below 2 n, so that an index takes 2 passes on average at most.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, sections 3 and 4 (cycle walking,
    generalised Feistel). Departure: the hash is SplitMix64's finaliser: fast and well mixed, not a cipher.
    """

    def __init__(self, n: int, seed: int) -> None:
        """Derive the keys.

        Args:
            n: size of the range, 1 to 2**62.
            seed: any integer.

        Raises:
            ValueError: n is out of bounds.
        """
        if not 1 <= n <= 2**62:
            raise ValueError(f"n is {n}, expected 1 to 2**62")
        self.n = n
        bits = max(2, (n - 1).bit_length())
        self._shift = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << (bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = [np.uint64(_hashed(seed, number)) for number in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.n

    def __call__(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the images of indices, int64 of the same shape ``[B]``.

        Raises:
            IndexError: an index is outside ``range(n)``.
        """
        given = np.asarray(indices)
        if given.size and not (given.min() >= 0 and given.max() < self.n):
            raise IndexError(f"indices {given.min()}..{given.max()} were asked for, expected 0..{self.n - 1}")
        values = self._pass(given.astype(np.uint64))
        outside = np.flatnonzero(values >= np.uint64(self.n))
        while len(outside):
            again = self._pass(values[outside])
            values[outside] = again
            outside = outside[again >= np.uint64(self.n)]
        return values.astype(np.int64)

    def _pass(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        low, high = values & self._low_mask, values >> self._shift
        for number, key in enumerate(self._keys):
            if number % 2 == 0:
                low = low ^ (_mixed(high + key) & self._low_mask)
            else:
                high = high ^ (_mixed(low + key) & self._high_mask)
        return (high << self._shift) | low


class EpochSampler(Sampler[int]):
    """Every index once, in an order that depends on (seed, epoch) alone and is computed on the way.

    torch's own ``RandomSampler`` holds all n indices. accelerate and transformers call :meth:`set_epoch`; without a call every
    iteration gives the order of epoch 0. All processes of a parallel run compute the same order, of which accelerate hands each
    its share.
    """

    def __init__(self, dataset_length: int, seed: int, dataset: Any = None) -> None:
        """Remember what the order is computed from.

        Args:
            dataset_length: n >= 1.
            seed: any integer.
            dataset: its ``set_epoch`` is called along. accelerate tells a dataset its epoch in a single process only, when the
                sampler has a ``set_epoch`` too; named here the dataset follows in every case.
        """
        self._length, self._seed, self._dataset, self._epoch = dataset_length, seed, dataset, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch (from 0) for the next iteration."""
        self._epoch = epoch
        if self._dataset is not None:
            self._dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        permutation = FeistelPermutation(self._length, _hashed(self._seed, self._epoch))
        for start in range(0, self._length, _CHUNK):
            yield from permutation(np.arange(start, min(start + _CHUNK, self._length))).tolist()
