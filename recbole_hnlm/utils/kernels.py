"""Compiled loops on threads: how to compile a kernel with numba, and how to spread it over cores.

Kernels release the GIL and run on ordinary Python threads rather than in numba's own parallel regions: numba's OpenMP layer
competes with torch's, aborts in forked data-loader workers, and splits rows evenly although their lengths differ by orders
of magnitude. Work is cut into more pieces than threads, so that a thread that finishes early takes another piece.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numba
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["compiled", "run_pieces", "run_rows"]

_PIECES = 8
_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function with numba without the GIL, keeping the machine code on disk where a folder can be written.

    Args:
        options: further options of ``numba.njit``, such as ``fastmath``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:
            # numba refuses to decorate when neither the source folder nor the user's cache folder can be written (a
            # read-only container, say). Compiling anew in every process costs a second and changes nothing else.
            return numba.njit(nogil=True, **options)(function)

    return decorate


def run_pieces(kernel: Callable[[int, int], object], bounds: Sequence[int]) -> None:
    """Call ``kernel(start, stop)`` for each pair of neighbours in ``bounds``, on as many threads as torch uses.

    Args:
        kernel: must release the GIL to gain anything and must write to no place that two pieces share.
        bounds: ascending piece boundaries, ``pieces + 1`` numbers.
    """
    threads = torch.get_num_threads()
    pieces = list(itertools.pairwise(bounds))
    if threads == 1 or len(pieces) == 1:
        for start, stop in pieces:
            kernel(start, stop)
        return
    # A pool does not survive a fork, hence one per process.
    key = (os.getpid(), threads)
    if key not in _POOLS:
        _POOLS[key] = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="hnlm")
    for future in [_POOLS[key].submit(kernel, start, stop) for start, stop in pieces]:
        future.result()


def run_rows(kernel: Callable[..., object], count: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` for a few pieces of ``0..count`` of like size; see :func:`run_pieces`."""
    pieces = min(_PIECES, count)
    bounds = [count * piece // pieces for piece in range(pieces + 1)] if count else [0]
    run_pieces(lambda start, stop: kernel(start, stop, *arguments), bounds)
