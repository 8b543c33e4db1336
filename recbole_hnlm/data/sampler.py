"""Candidates for negatives: K random items per positive that the user did not interact with in training.

RecBole's sampler rejects in a Python list comprehension over sets; here one compiled loop draws and checks against sorted
rows, at the same contract. (A packed user x item bit matrix is slower to build and no faster to probe.) Every output cell
has its own random stream, a function of the seed, the number of the call and the cell's index, so that the result does
not depend on the number of threads.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.hashing import mix64
from recbole_hnlm.utils.kernels import compiled, run_pieces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = ["CandidateSampler", "alias_table"]

# Below this number of rows in a call, a second thread costs more than it gains.
_MIN_CELLS_PER_PIECE = 16_384
# Draws after which a cell enumerates the free items instead: only users with nearly the whole catalogue get there.
_MAX_DRAWS = 64


_mixed = compiled()(mix64)


@compiled()
def _next_random(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Advance a SplitMix64 stream (Steele, Lea and Flood, OOPSLA 2014); return the new state and 64 random bits."""
    state += np.uint64(0x9E3779B97F4A7C15)
    return state, _mixed(state)


@compiled()
def _draw(bits: np.uint64, prob: NDArray[np.float32], alias: NDArray[np.int32], n_items: int) -> int:
    """Turn 64 random bits into an item: the upper half picks a column, the lower half decides between it and its alias."""
    column = np.int64(((bits >> np.uint64(32)) * np.uint64(n_items - 1)) >> np.uint64(32))
    if len(prob) == 0:
        return int(column + 1)
    coin = np.float32((bits & np.uint64(0xFFFFFF)) * (1.0 / 16_777_216.0))
    return int(column + 1) if coin < prob[column] else int(alias[column]) + 1


@compiled()
def _holds(indices: NDArray[np.int32], low: int, high: int, item: int) -> bool:
    """Look for ``item`` in the sorted ``indices[low:high]``: halve a long row, then compare all of what is left at once.

    A binary search mispredicts every other branch; comparing up to 64 neighbours has no branch and vectorises.
    """
    while high - low > 64:
        middle = (low + high) >> 1
        value = indices[middle]
        if value == item:
            return True
        if value < item:
            low = middle + 1
        else:
            high = middle
    wanted, found = np.int32(item), np.int32(0)
    for place in range(np.uint64(low), np.uint64(high)):
        found |= np.int32(indices[place] == wanted)
    return found != 0


@compiled()
def _enumerate_free(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    bits: np.uint64, indices: NDArray[np.int32], low: int, high: int, weights: NDArray[np.float64], n_items: int
) -> int:
    """Draw exactly from the items outside ``indices[low:high]`` in proportion to ``weights`` (all 1 when empty); 0 if none."""
    total = 0.0
    for item in range(1, n_items):
        if not _holds(indices, low, high, item):
            total += weights[item] if len(weights) else 1.0
    threshold = (bits >> np.uint64(11)) * (1.0 / 9_007_199_254_740_992.0) * total
    running, last = 0.0, 0
    for item in range(1, n_items):
        weight = weights[item] if len(weights) else 1.0
        if weight > 0 and not _holds(indices, low, high, item):
            running += weight
            last = item
            if running > threshold:
                return item
    return last


@compiled()
def _fill(  # noqa: PLR0917
    start: int,
    stop: int,
    users: NDArray[np.int64],
    numbers: NDArray[np.int64],
    out: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    prob: NDArray[np.float32],
    alias: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_items: int,
    stream: np.uint64,
) -> None:
    """Fill rows ``start..stop`` of ``out [B, K]`` with items new to their users; 0 where a user has none left.

    ``numbers [B]`` are the numbers under which the rows draw; without any a row's number is its place.
    """
    width = out.shape[1]
    for row in range(start, stop):
        user = users[row]
        low, high = indptr[user], indptr[user + 1]
        number = numbers[row] if len(numbers) else row
        for column in range(width):
            state = stream ^ (np.uint64(number * width + column) * np.uint64(0xD1342543DE82EF95))
            item = 0
            for _ in range(_MAX_DRAWS):
                state, bits = _next_random(state)
                drawn = _draw(bits, prob, alias, n_items)
                if not _holds(indices, low, high, drawn):
                    item = drawn
                    break
            if item == 0:
                state, bits = _next_random(state)
                item = _enumerate_free(bits, indices, low, high, weights, n_items)
            out[row, column] = item


def _stream_of(seed: int, call: int) -> np.uint64:
    """Hash a seed and the number of a call into the start of a stream, by two SplitMix64 finalisers."""
    mask, value = 2**64 - 1, seed
    for word in (0x9E3779B97F4A7C15, call * 0xD1342543DE82EF95):
        value = (value ^ (value >> 31)) + word & mask
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
    return np.uint64(value ^ (value >> 31))


def alias_table(weights: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Build Walker's alias table, which draws from a discrete distribution in constant time.

    Source: A. J. Walker, "An efficient method for generating discrete random variables with general distributions",
    ACM TOMS 3(3), 1977; built by Vose's two stacks.

    Args:
        weights: not negative, not all zero, ``[n]``.

    Returns:
        ``(prob, alias)``, both ``[n]``: a uniform column ``c`` stands for itself with probability ``prob[c]`` and for
        ``alias[c]`` otherwise.

    Raises:
        DataError: if no weight is positive.
    """
    total = float(weights.sum())
    if not total > 0:
        raise DataError("popularity sampling found no training interaction to count, expected at least one")
    scaled = (weights * (len(weights) / total)).tolist()
    prob = np.ones(len(weights), dtype=np.float32)
    alias = np.arange(len(weights), dtype=np.int32)
    small = [index for index, value in enumerate(scaled) if value < 1.0]
    large = [index for index, value in enumerate(scaled) if value >= 1.0]
    while small and large:
        lesser, greater = small.pop(), large[-1]
        prob[lesser], alias[lesser] = scaled[lesser], greater
        scaled[greater] -= 1.0 - scaled[lesser]
        if scaled[greater] < 1.0:
            small.append(large.pop())
    # Rounding may leave columns over: they stand for themselves, save those of weight zero, which may never be drawn.
    heaviest = int(np.argmax(weights))
    for index in small:
        if weights[index] == 0:
            prob[index], alias[index] = 0.0, heaviest
    return prob, alias


class CandidateSampler:
    """Draw items that a user did not interact with, uniformly or by popularity.

    Symbols: U users and I items including the padding id 0, B rows, K candidates per row.

    It has the contract of RecBole's ``Sampler`` as far as loaders use it: :meth:`sample_by_user_ids`, :attr:`used_ids`,
    :attr:`phase` and :meth:`set_phase`. Departures from RecBole: the popularity counts are those of the first phase
    (training) only, while RecBole counts validation and test as well; the padding id is never drawn.

    Uniform draws multiply 32 random bits into the range, which favours no item by more than I / 2**32 relatively.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        positives: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        distribution: str = "uniform",
        alpha: float = 0.75,
        seed: int = 0,
        allowed: NDArray[np.bool_] | None = None,
    ) -> None:
        """Index the positives.

        Args:
            n_users: U.
            n_items: I.
            positives: phase -> (users, items), both ``[P]``, in the order train, valid, test. A phase excludes its own
                positives and those of the phases before it.
            distribution: ``uniform``, or ``popularity``: in proportion to (training count) ** alpha.
            alpha: power of the count.
            seed: any integer; equal seeds and equal calls give equal ids.
            allowed: items that may be drawn, bool ``[I]``; None allows all. The padding id is never drawn.

        Raises:
            DataError: if some user has no item left to draw, nothing is allowed, or ``distribution`` is unknown.
        """
        if distribution not in {"uniform", "popularity"}:
            raise DataError(f"sampling distribution {distribution!r} is unknown, expected uniform or popularity")
        self.n_users, self.n_items, self.distribution = n_users, n_items, distribution
        self._seed, self._calls = int(seed) & (2**64 - 1), 0
        self._rows: dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]] = {}
        keys = np.empty(0, dtype=np.int64)
        for phase, (users, items) in positives.items():
            new = np.asarray(users, dtype=np.int64) * n_items + np.asarray(items, dtype=np.int64)
            keys = np.unique(np.concatenate([keys, new]))
            indptr = np.zeros(n_users + 1, dtype=np.int64)
            np.cumsum(np.bincount(keys // n_items, minlength=n_users), out=indptr[1:])
            self._rows[phase] = (indptr, (keys % n_items).astype(np.int32))
        self.phases = list(positives)
        self._used: dict[str, NDArray[np.object_]] = {}
        self._weights = np.empty(0, dtype=np.float64)
        self._prob, self._alias = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int32)
        if distribution == "popularity":
            counts = np.bincount(np.asarray(positives[self.phases[0]][1], dtype=np.int64), minlength=n_items).astype(np.float64)
            self._weights = np.where(counts > 0, counts**alpha, 0.0)
        if allowed is not None:
            self._weights = np.where(allowed, self._weights if len(self._weights) else 1.0, 0.0)
            self._weights[0] = 0.0
            if not self._weights.any():
                raise DataError(f"none of the {n_items - 1} items may be drawn, expected at least one allowed item")
        if len(self._weights):
            self._prob, self._alias = alias_table(self._weights[1:])
        self._enter(self.phases[0])

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self._indptr, self._indices = self._rows[phase]
        self._refuse_users_without_negatives()

    def _refuse_users_without_negatives(self) -> None:
        held = np.diff(self._indptr)
        drawable = self.n_items - 1
        if len(self._weights):
            drawable = int(np.count_nonzero(self._weights))
            # Only items that can be drawn count as held: a validation positive may have no training count.
            running = np.concatenate([[0], np.cumsum(self._weights[self._indices] > 0)])
            held = running[self._indptr[1:]] - running[self._indptr[:-1]]
        full = np.flatnonzero(held >= drawable)
        if len(full):
            raise DataError(
                f"{len(full)} users (internal id {full[0]} first) interacted with all {drawable} items that "
                f"{self.distribution} sampling can draw, expected at least one left as a negative; drop them "
                f"with user_inter_num_interval"
            )

    @property
    def used_ids(self) -> NDArray[np.object_]:
        """Sets of the positives that the phase excludes, by internal user id, object ``[U]`` (RecBole's layout)."""
        if self.phase not in self._used:
            sets = np.empty(self.n_users, dtype=object)
            for user in range(self.n_users):
                sets[user] = set(self._indices[self._indptr[user] : self._indptr[user + 1]].tolist())
            self._used[self.phase] = sets
        return self._used[self.phase]

    def set_phase(self, phase: str) -> CandidateSampler:
        """Return a copy that excludes the positives of ``phase`` and of the phases before it.

        Raises:
            DataError: if there is no such phase, or a user has no item left in it.
        """
        if phase not in self._rows:
            raise DataError(f"phase {phase!r} is unknown to the sampler, expected one of {', '.join(self.phases)}")
        other = copy.copy(self)
        other._enter(phase)
        return other

    def reseed(self, seed: int) -> None:
        """Start over from a seed, as if newly built with it."""
        self._seed, self._calls = int(seed) & (2**64 - 1), 0

    def state_dict(self) -> dict[str, int]:
        """Return what :meth:`load_state_dict` needs to continue the same sequence of draws."""
        return {"seed": self._seed, "calls": self._calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the sequence of draws that :meth:`state_dict` described."""
        self._seed, self._calls = int(state["seed"]), int(state["calls"])

    def sample_candidates(self, user_ids: ArrayLike, num: int) -> torch.Tensor:
        """Draw ``num`` items for each user, with replacement.

        Args:
            user_ids: internal user ids, ``[B]``.
            num: K.

        Returns:
            Internal item ids, int64 ``[B, K]``.

        Raises:
            DataError: if an id is not a user's.
        """
        self._calls += 1
        return self._filled(user_ids, num, np.empty(0, dtype=np.int64), self._calls - 1)

    def sample_numbered(self, user_ids: ArrayLike, num: int, numbers: ArrayLike, call: int) -> torch.Tensor:
        """Draw ``num`` items for each user, each row as a function of (seed, call, its number) alone.

        Row ``b`` is row ``numbers[b]`` of what the ``call``-th :meth:`sample_candidates` since the seed (from 0) would give
        for a batch in which that row belongs to the same user. No state is read or changed, so that neither the order of rows
        nor their division over batches and processes matters.

        Args:
            user_ids: internal user ids, ``[B]``.
            num: K.
            numbers: number of each row, not negative, ``[B]``.
            call: which call to repeat, such as an epoch.

        Returns:
            Internal item ids, int64 ``[B, K]``.

        Raises:
            DataError: if an id is not a user's.
        """
        return self._filled(user_ids, num, np.ascontiguousarray(numbers, dtype=np.int64), call)

    def _filled(self, user_ids: ArrayLike, num: int, numbers: NDArray[np.int64], call: int) -> torch.Tensor:
        users = np.ascontiguousarray(user_ids, dtype=np.int64)
        if len(users) and not (users.min() >= 0 and users.max() < self.n_users):
            raise DataError(f"user ids {users.min()}..{users.max()} were asked for, expected 0..{self.n_users - 1}")
        out = np.empty((len(users), num), dtype=np.int64)
        stream = _stream_of(self._seed, call)
        pieces = max(1, min(16, out.size // _MIN_CELLS_PER_PIECE))
        bounds = [len(users) * piece // pieces for piece in range(pieces + 1)]
        tables = (self._indptr, self._indices, self._prob, self._alias, self._weights, self.n_items, stream)
        run_pieces(lambda start, stop: _fill(start, stop, users, numbers, out, *tables), bounds)
        return torch.from_numpy(out)

    def sample_by_user_ids(self, user_ids: ArrayLike, item_ids: ArrayLike | None, num: int) -> torch.Tensor:
        """Draw as :meth:`sample_candidates`, in RecBole's layout.

        Args:
            user_ids: internal user ids, ``[B]``.
            item_ids: ignored; part of RecBole's signature.
            num: K.

        Returns:
            int64 ``[K * B]``: K blocks of B, so that entry ``r`` belongs to user ``r % B``.
        """
        return self.sample_candidates(user_ids, num).t().reshape(-1)
