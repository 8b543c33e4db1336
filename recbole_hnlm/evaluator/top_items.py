"""The best items of each row of scores, and which of them are relevant, by partial selection in compiled loops.

Symbols: n rows (users), I items including the padding id 0, k the length of the lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from recbole_hnlm.utils.kernels import compiled, run_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ItemLists", "RankedRows", "rank_rows"]

_LANES = 64
_DEPTH = 32
_COMPILED = (torch.float32, torch.float64)


class ItemLists(NamedTuple):
    """Items of each row, in compressed rows.

    Attributes:
        pointers: int64 ``[n + 1]``.
        items: internal ids, int64.
    """

    pointers: NDArray[np.int64]
    items: NDArray[np.int64]

    def rows(self, start: int, stop: int) -> ItemLists:
        """Return the lists of rows ``start..stop``; the items are a view."""
        pointers = self.pointers[start : stop + 1]
        return ItemLists(pointers - pointers[0], self.items[pointers[0] : pointers[-1]])


@compiled()
def _insert(value: np.float32, item: int, best: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
    """Insert into values in descending order, the least of which falls out."""
    place = len(best) - 1
    while place > 0 and best[place - 1] < value:
        best[place], ids[place] = best[place - 1], ids[place - 1]
        place -= 1
    best[place], ids[place] = value, item


@compiled()
def _group_maxima(row: NDArray[np.float32], maxima: NDArray[np.float32]) -> int:
    """Write the maximum of each group of items, and return how many scores of a group are NaN.

    Group ``64 s + j`` holds the items ``2048 s + j + 64 t``, t = 0..31, so that 64 maxima are taken side by side.
    """
    undefined = 0
    for section in range(len(maxima) // _LANES):
        top = maxima[section * _LANES : (section + 1) * _LANES]
        top[:] = -np.inf
        first = section * _LANES * _DEPTH
        for base in range(first, first + _LANES * _DEPTH, _LANES):
            for lane in range(_LANES):
                value = row[base + lane]
                undefined += value != value  # noqa: PLR0124 - NaN alone differs from itself
                top[lane] = value if value > top[lane] else top[lane]
    return undefined


@compiled()
def _best(row: NDArray[np.float32], maxima: NDArray[np.float32], best: NDArray[np.float32], ids: NDArray[np.int64]) -> int:
    """Write the largest values and their items, and return how many scores are NaN."""
    last, step = len(best) - 1, _LANES * _DEPTH
    undefined = _group_maxima(row, maxima)
    best[:] = -np.inf
    for group in range(len(maxima)):
        if maxima[group] > best[last]:
            _insert(maxima[group], 0, best, ids)
    # As many groups as there are values to find hold a value of at least this.
    least = best[last]
    best[:], ids[:] = -np.inf, 0
    for group in range(len(maxima)):
        if maxima[group] >= least:
            first = group // _LANES * step + group % _LANES
            for item in range(first, first + step, _LANES):
                if row[item] > best[last]:
                    _insert(row[item], item, best, ids)
    for item in range(len(maxima) * _DEPTH, len(row)):
        undefined += row[item] != row[item]
        if row[item] > best[last]:
            _insert(row[item], item, best, ids)
    return undefined


@compiled()
def _mark(
    row: int,
    positive_pointers: NDArray[np.int64],
    positives: NDArray[np.int64],
    items: NDArray[np.int64],
    hits: NDArray[np.int64],
) -> None:
    """Write which items of a row are relevant, and how many relevant ones it has."""
    k, first, last = items.shape[1], positive_pointers[row], positive_pointers[row + 1]
    for place in range(k):
        hits[row, place] = 0
        for positive in positives[first:last]:
            if positive == items[row, place]:
                hits[row, place] = 1
    hits[row, k] = last - first


@compiled()
def _rank(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    scores: NDArray[np.float32],
    history_pointers: NDArray[np.int64],
    history: NDArray[np.int64],
    positive_pointers: NDArray[np.int64],
    positives: NDArray[np.int64],
    items: NDArray[np.int64],
    hits: NDArray[np.int64],
    decided: NDArray[np.bool_],
) -> None:
    """Rank rows ``start..stop``; see :func:`rank_rows`."""
    n_items, k = scores.shape[1], items.shape[1]
    maxima = np.empty(n_items // (_LANES * _DEPTH) * _LANES, scores.dtype)
    best, ids = np.empty(k + 1, scores.dtype), np.empty(k + 1, np.int64)
    for row in range(start, stop):
        scores[row, 0] = -np.inf
        for place in range(history_pointers[row], history_pointers[row + 1]):
            scores[row, history[place]] = -np.inf
        decided[row] = _best(scores[row], maxima, best, ids) == 0
        for place in range(k):
            items[row, place] = ids[place]
            decided[row] &= best[place] > best[place + 1]
        _mark(row, positive_pointers, positives, items, hits)


def rank_rows(scores: torch.Tensor, histories: ItemLists, positives: ItemLists, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k best items of each row and which of them are relevant, as RecBole's collector does.

    Only the groups of items whose maximum can be among the k best are looked at one by one. Rows whose list depends on the
    order of equal scores, or that hold NaN, are given to ``torch.topk``, so that lists equal those of RecBole.

    Args:
        scores: floating ``[n, I]`` on the CPU; those of the padding id and of the histories may become ``-inf``.
        histories: items that are not ranked.
        positives: relevant items, each once in a row.
        k: at most I.

    Returns:
        Internal ids, best first, ``[n, k]``; and 1 for hits, 0 for others, then the number of relevant items, ``[n, k + 1]``;
        both int64.
    """
    scores = (scores if scores.dtype in _COMPILED else scores.float()).contiguous()
    count = len(scores)
    items, hits = np.empty((count, k), dtype=np.int64), np.empty((count, k + 1), dtype=np.int64)
    decided = np.empty(count, dtype=np.bool_)
    run_rows(_rank, count, scores.numpy(), *histories, *positives, items, hits, decided)
    undecided = np.flatnonzero(~decided)
    if len(undecided):
        items[undecided] = torch.topk(scores[torch.from_numpy(undecided)], k, dim=-1)[1].numpy()
        for row in undecided:
            _mark(row, *positives, items, hits)
    return torch.from_numpy(items), torch.from_numpy(hits)


class RankedRows:
    """The lists of many rows, ranked block by block.

    They lie in one piece that is there from the start. Small arrays that stay, allocated in turns with large ones that go,
    would leave the allocator holes in which no further block of scores fits, and memory would grow with rows x items.

    Args:
        rows: how many at most.
        k: length of the lists.
    """

    def __init__(self, rows: int, k: int) -> None:
        self._items = torch.empty((rows, k), dtype=torch.int64)
        self._hits = torch.empty((rows, k + 1), dtype=torch.int64)
        self._count = 0

    def add(self, scores: torch.Tensor, histories: ItemLists, positives: ItemLists) -> None:
        """Rank the next rows; see :func:`rank_rows`."""
        items, hits = rank_rows(scores, histories, positives, self._items.shape[1])
        place = slice(self._count, self._count + len(items))
        self._items[place], self._hits[place] = items, hits
        self._count += len(items)

    @property
    def lists(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What :func:`rank_rows` returns, of all rows so far."""
        return self._items[: self._count], self._hits[: self._count]
