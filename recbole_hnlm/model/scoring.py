"""Combining two kinds of scores; pure functions.

Symbols: n users, I items including the padding id 0.
"""

from __future__ import annotations

import torch

from recbole_hnlm.utils.scores import standardise_rows

__all__ = ["fuse_scores"]


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
    fused = standardise_rows(scores[:, 1:]) + weight * standardise_rows(cosines[:, 1:])
    return torch.cat([torch.zeros_like(fused[:, :1]), fused], dim=1)
