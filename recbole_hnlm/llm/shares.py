"""Rows of a batch that do not depend on each other, shared out over the cores of a CPU.

A decoding step of a small model is many short operations, each of which waits for its slowest thread. Threads that each decode
their own rows, with one core for every operation, do not wait for each other.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ROWS_PER_SHARE", "map_shares", "shares_of"]

Row = TypeVar("Row")
Result = TypeVar("Result")

ROWS_PER_SHARE = 32
"""Fewer rows make matrix products wait for the weights to come out of memory."""


def shares_of(rows: int, threads: int) -> int:
    """Return the number of shares into which rows are divided.

    >>> [shares_of(rows, threads=2) for rows in (1, 32, 33, 128)]
    [1, 1, 2, 2]
    """
    return max(1, min(threads, math.ceil(rows / ROWS_PER_SHARE)))


def map_shares(
    rows: Sequence[Row], work: Callable[[Sequence[Row], Callable[[], bool]], Sequence[Result]], shares: int
) -> list[Result]:
    """Apply ``work`` to rows in as many threads as there are shares, each with its part of torch's threads.

    Every share takes each n-th row, so that rows sorted by length make shares of equal work.

    Args:
        rows: at least one.
        work: called with the rows of a share and a function that says whether to give up; returns a result for each row.
        shares: number of threads, at most as many as rows.

    Returns:
        The results in the order of the rows.

    Raises:
        BaseException: the first that a share raised, after the others were told to give up.
    """
    if shares == 1:
        return list(work(rows, lambda: False))
    threads = torch.get_num_threads()
    given_up = False
    results: dict[int, Sequence[Result]] = {}

    def run(share: int) -> None:
        nonlocal given_up
        torch.set_num_threads(max(1, threads // shares))  # of this thread alone, and of threads that are started later
        try:
            results[share] = work(rows[share::shares], lambda: given_up)
        except BaseException:
            given_up = True
            raise

    try:
        with ThreadPoolExecutor(shares, thread_name_prefix="decode") as pool:
            try:
                for future in [pool.submit(run, share) for share in range(shares)]:
                    future.result()
            except BaseException:
                given_up = True  # also for an interruption, which arrives in this thread
                raise
    finally:
        torch.set_num_threads(threads)
    return [results[row % shares][row // shares] for row in range(len(rows))]
