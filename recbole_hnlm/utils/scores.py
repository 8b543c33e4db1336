"""Putting scores of different kinds on one scale; pure functions."""

from __future__ import annotations

import torch

__all__ = ["standardise_rows"]


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
