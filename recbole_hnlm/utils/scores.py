"""Putting scores of different kinds on one scale, and adding them; pure functions.

Symbols: n users, I items including the padding id 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_hnlm.utils.kernels import compiled, run_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["standardise_items", "standardise_rows"]

_COMPILED = (torch.float32, torch.float64)


def standardise_rows(scores: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Give each row mean 0 and (population) standard deviation 1 over the entries that take part; the others become 0.

    A row whose spread is rounding of its mean becomes 0.

    Args:
        scores: floating ``[n, I]``.
        known: which entries take part, bool, of a shape that broadcasts to ``[n, I]``; None takes all.

    Returns:
        ``[n, I]``, of the type of ``scores``.
    """
    limits = torch.finfo(scores.dtype)
    if known is None:
        spread, mean = torch.std_mean(scores, dim=1, keepdim=True, correction=0)
        centred = scores - mean
    else:
        known = known.expand_as(scores)
        count = known.sum(dim=1, keepdim=True).clamp_min(1)
        mean = scores.masked_fill(~known, 0.0).sum(dim=1, keepdim=True) / count
        centred = (scores - mean).masked_fill(~known, 0.0)
        spread = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()
    rounding = limits.eps * mean.abs().clamp_min(limits.tiny)
    return torch.where(spread > rounding, centred / spread.clamp_min(limits.tiny), 0.0)


# Sums in any order may be vectorised; NaN and infinity keep their meaning.
@compiled(fastmath={"reassoc", "contract"})
def _standardise(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    scores: NDArray[np.float32],
    known: NDArray[np.bool_],
    eps: float,
    tiny: float,
    out: NDArray[np.float32],
) -> None:
    """Standardise rows ``start..stop`` over the entries after the first, and set that one to 0."""
    n_items = scores.shape[1]
    count = max(known[1:].sum(), 1)
    for row in range(start, stop):
        own, target = scores[row], out[row]
        total = 0.0
        for item in range(1, n_items):
            total += own[item] if known[item] else 0.0
        mean = total / count
        squares = 0.0
        for item in range(1, n_items):
            distance = own[item] - mean if known[item] else 0.0
            squares += distance * distance
        spread = np.sqrt(squares / count)
        factor = 1.0 / spread if spread > eps * max(abs(mean), tiny) else 0.0
        if factor == 0.0:
            target[:] = 0.0
            continue
        for item in range(1, n_items):
            target[item] = (own[item] - mean) * factor if known[item] else 0.0
        target[0] = 0.0


def standardise_items(scores: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Standardise all items' scores for some users as :func:`standardise_rows` does; the padding id takes no part and has 0.

    On a CPU each row is read while it is in the processor's cache, and sums are of double precision.

    Args:
        scores: ``[n, I]``.
        known: which items take part, bool ``[I]``; None takes all.

    Returns:
        A new tensor ``[n, I]`` of the type of ``scores``.
    """
    if scores.device.type != "cpu" or scores.dtype not in _COMPILED:
        mask = None if known is None or bool(known[1:].all()) else known[None, 1:]
        return torch.nn.functional.pad(standardise_rows(scores[:, 1:], mask), (1, 0))
    limits, scores = torch.finfo(scores.dtype), scores.contiguous()
    taking_part = np.ones(scores.shape[1], dtype=np.bool_) if known is None else known.numpy()
    out = torch.empty_like(scores)
    run_rows(_standardise, len(scores), scores.detach().numpy(), taking_part, limits.eps, limits.tiny, out.numpy())
    return out
