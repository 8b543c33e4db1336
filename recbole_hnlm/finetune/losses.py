"""What fine-tuning minimises, as pure functions.

Symbols: B pairs of the batch, C candidates, H the size of a representation; q_a, p_a, n_a the representations of pair a's
query, of its hard-negative item (the target) and of the interacted item, t the temperature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

__all__ = ["hard_negative_loss", "in_batch_contrast"]


def hard_negative_loss(query: torch.Tensor, pos: torch.Tensor, neg: torch.Tensor, temperature: float) -> torch.Tensor:
    """Pull each query to its hard-negative item and away from the interacted items of the whole batch.

    Formula: ``-1/B^2 * sum_{a,b} log sigmoid((cos(q_a, p_a) - cos(q_a, n_b)) / t)``.
    Source: HNLMRec (arXiv 2504.04726), fine-tuning objective (docs/method.md, section 8). Departure: none in value;
    ``log sigmoid`` is computed as one function and in float32 at least, also under autocast, so that it stays finite where
    a half-precision sigmoid is 0.

    Args:
        query: q, float ``[B, H]``, of any length.
        pos: p, float ``[B, H]``.
        neg: n, float ``[B, H]``.
        temperature: t > 0.

    Returns:
        A scalar, float32 (float64 for float64 input).
    """
    with torch.autocast(query.device.type, enabled=False):
        query, pos, neg = (_unit(matrix) for matrix in (query, pos, neg))
        to_positive = (query * pos).sum(dim=1, keepdim=True)  # [B, 1]
        to_negatives = query @ neg.t()  # [B, B]
        return -F.logsigmoid((to_positive - to_negatives) / temperature).mean()


def in_batch_contrast(  # noqa: PLR0917 - the symbols of the formula, as in the other losses
    query: torch.Tensor,
    pos: torch.Tensor,
    candidates: torch.Tensor,
    pos_index: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Distinguish each query's target from the other candidates (InfoNCE).

    Formula: ``-1/B * sum_a log( exp(cos(q_a, p_a)/t) / (exp(cos(q_a, p_a)/t) + sum_c exp(cos(q_a, c)/t)) )``, where c runs over
    the candidates other than row ``pos_index[a]`` that ``mask`` does not leave out. Source: van den Oord et al.,
    arXiv 1807.03748, formula 4. The target enters as ``pos``, not as its row among the candidates, so that candidates may come
    without gradient (from other processes, or from a cache); with equal rows this is the usual cross entropy.

    Args:
        query: q, float ``[B, H]``, of any length.
        pos: p, float ``[B, H]``.
        candidates: float ``[C, H]``.
        pos_index: row of each query's target among the candidates, int64 ``[B]``.
        temperature: t > 0.
        mask: bool ``[B, C]``, True leaves a candidate out: other copies of the target, and items that the user interacted with.
            The target itself stays in whatever the mask says.

    Returns:
        A scalar, float32 (float64 for float64 input).
    """
    with torch.autocast(query.device.type, enabled=False):
        query, pos, candidates = (_unit(matrix) for matrix in (query, pos, candidates))
        similarities = query @ candidates.t()  # [B, C]
        if mask is not None:
            similarities = similarities.masked_fill(mask, float("-inf"))
        to_positive = (query * pos).sum(dim=1, keepdim=True)  # [B, 1]
        similarities = similarities.scatter(1, pos_index.unsqueeze(1), to_positive)  # [B, C]
        return F.cross_entropy(similarities / temperature, pos_index)


def _unit(matrix: torch.Tensor) -> torch.Tensor:
    """Scale rows to length 1, in float32 at least."""
    return F.normalize(matrix.to(torch.promote_types(matrix.dtype, torch.float32)), dim=1)
