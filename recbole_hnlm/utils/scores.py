"""Putting scores of different kinds on one scale, and adding them; pure functions.

Symbols: n users, I items including the padding id 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_hnlm.utils.kernels import compiled, even_pieces, run_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fuse_scores", "standardise_items", "standardise_rows", "text_part"]

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
    arrays = (scores.detach().numpy(), taking_part, limits.eps, limits.tiny, out.numpy())
    run_pieces(lambda start, stop: _standardise(start, stop, *arrays), even_pieces(len(scores)))
    return out


def text_part(text_scores: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """Standardise the texts' scores over the items that have text; an item without gets 0.

    Args:
        text_scores: ``[n, I]``; a user without text has a row of equal values, which becomes 0.
        known: which items have text, bool ``[I]``; None means all.

    Returns:
        ``[n, I - 1]``, without the padding id.
    """
    mask = None if known is None or bool(known[1:].all()) else known[None, 1:]
    return standardise_rows(text_scores[:, 1:], mask)


def fuse_scores(
    scores: torch.Tensor, text_scores: torch.Tensor, weight: float, known: torch.Tensor | None = None
) -> torch.Tensor:
    """Add the texts' scores to the model's, each in units of its own spread over a user's items.

    Formula: ``z(s_u)_i + w * z(s_text)_i``, z standardising over the items. A weighted sum of standardised scores is CombSUM,
    rank fusion (Fox and Shaw, "Combination of Multiple Searches", TREC-2, 1994), with a weight.

    Args:
        scores: the model's, ``[n, I]``.
        text_scores: as for :func:`text_part`.
        weight: w >= 0.
        known: as for :func:`text_part`.

    Returns:
        ``[n, I]``; the padding id's column is 0.
    """
    return torch.nn.functional.pad(standardise_rows(scores[:, 1:]) + weight * text_part(text_scores, known), (1, 0))
