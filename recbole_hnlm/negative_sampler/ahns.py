r"""AHNS: a negative whose hardness adapts to the positive: the better the positive scores, the easier its negative.

Formula: ``j = argmin_{j in candidates} | s_uj - beta * (s_ui + alpha)^(p + 1) |`` with ``p < -1``, so that the wanted score
falls as the positive's score rises.
Source: Lai, Chen, Han, Zhang and Chen, "Adaptive Hardness Negative Sampling for Collaborative Filtering", AAAI 2024 (arXiv
2401.05191), with a negative power; the formula was read from the public repository Riwei-HEU/AHNS.
Departure: ``s_ui + alpha`` is kept at 1e-6 or above. Inner products can be negative, where the power has no real value or
turns its sign; a positive that scores below ``-alpha`` gets the hardest candidate, which is the limit of the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, stateless
from recbole_hnlm.negative_sampler.dns import candidate_scores

if TYPE_CHECKING:
    import torch

    from recbole_hnlm.negative_sampler.base import SelectionInputs

__all__ = ["SAMPLER", "adaptive_choice"]

_LEAST_BASE = 1e-6


def adaptive_choice(
    positive_scores: torch.Tensor, scores: torch.Tensor, alpha: float, beta: float, power: float
) -> torch.Tensor:
    """Return the column whose score is nearest to ``beta * (s_ui + alpha)^(power + 1)``, the first on a tie.

    Args:
        positive_scores: s_ui, float ``[B]``.
        scores: s_uj, float ``[B, K]``.
        alpha: shift of the positive's score, in units of a score.
        beta: scale of the wanted score.
        power: p.

    Returns:
        int64 ``[B]``.
    """
    wanted = beta * (positive_scores + alpha).clamp_min(_LEAST_BASE).pow(power + 1)  # [B]
    return (scores - wanted.unsqueeze(1)).abs().argmin(dim=1)


def _select(inputs: SelectionInputs) -> Negatives:
    settings, tables = inputs.settings, (inputs.user_all, inputs.item_all)
    positive = candidate_scores(inputs.users, inputs.positives.unsqueeze(1), *tables).squeeze(1)  # [B]
    scores = candidate_scores(inputs.users, inputs.candidates, *tables)  # [B, K]
    place = adaptive_choice(positive, scores, settings.ahns_alpha, settings.ahns_beta, settings.ahns_p)
    return Negatives(items=inputs.candidates.gather(1, place.unsqueeze(1)).squeeze(1))


SAMPLER = NegativeSampler(stateless(_select), least_candidates=2)
