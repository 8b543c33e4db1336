"""Combining two kinds of scores; pure functions.

Symbols: n users, I items including the padding id 0.
"""

from __future__ import annotations

import torch

__all__ = ["fuse_scores", "standardise_rows"]


def standardise_rows(scores: torch.Tensor) -> torch.Tensor:
    """Give each row of ``[n, I]`` mean 0 and standard deviation 1 over the items 1..; the padding id's column becomes 0.

    A row without any spread becomes 0.
    """
    items = scores[:, 1:]
    spread, mean = torch.std_mean(items, dim=1, keepdim=True, correction=0)
    tiny = torch.finfo(scores.dtype).eps * mean.abs().clamp_min(torch.finfo(scores.dtype).tiny)
    unit = torch.where(spread > tiny, (items - mean) / spread.clamp_min(torch.finfo(scores.dtype).tiny), 0.0)
    return torch.cat([torch.zeros_like(scores[:, :1]), unit], dim=1)


def fuse_scores(scores: torch.Tensor, cosines: torch.Tensor, weight: float) -> torch.Tensor:
    """Add the cosines of texts to the scores of embeddings, each in units of its own spread over a user's items.

    Formula: ``z(s_u)_i + w * z(cos(t_u, t_.))_i``, z standardising over the items. A weighted sum of standardised scores is the
    CombSUM of rank fusion (Fox and Shaw, "Combination of Multiple Searches", TREC-2, 1994) with a weight.

    Args:
        scores: e_u . e_i, ``[n, I]``.
        cosines: cos(t_u, t_i), ``[n, I]``; a user without text has a row of equal values, which changes no order.
        weight: w >= 0.

    Returns:
        ``[n, I]``; the padding id's column is 0.
    """
    return standardise_rows(scores) + weight * standardise_rows(cosines)
