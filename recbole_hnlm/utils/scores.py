"""Putting scores of different kinds on one scale, and adding them; pure functions.

Symbols: n users, I items including the padding id 0.
"""

from __future__ import annotations

import torch

__all__ = ["fuse_scores", "standardise_rows", "text_part"]


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
