"""DNS(M, N): one of the N hardest of M uniform candidates, all N equally likely.

Source: Shi, Chen, Feng, Zhang, Wu, Gao and He, "On the Theories Behind Hard Negative Sampling for Recommendation", WWW 2023,
section 3 (the sampler that generalises DNS; larger M/N matches a top-K metric of smaller K). With N = 1 it is DNS, with N = M
uniform sampling. Departure: scores come from the embeddings of the training step itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, stateless
from recbole_hnlm.negative_sampler.dns import candidate_scores

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import SelectionInputs

__all__ = ["SAMPLER", "one_of_the_hardest"]


def one_of_the_hardest(scores: torch.Tensor, candidates: torch.Tensor, top: int, draws: torch.Tensor) -> torch.Tensor:
    """Return the ``floor(draw * N)``-th hardest candidate of each row.

    Args:
        scores: float ``[B, M]``.
        candidates: int64 ``[B, M]``.
        top: N, from 1 to M.
        draws: uniform in [0, 1), ``[B]``.

    Returns:
        Item ids, int64 ``[B]``.
    """
    hardest = scores.topk(top, dim=1).indices  # [B, N], hardest first
    rank = (draws * top).long().clamp_max(top - 1)  # [B]
    return candidates.gather(1, hardest.gather(1, rank.unsqueeze(1))).squeeze(1)


def _select(inputs: SelectionInputs) -> Negatives:
    scores = candidate_scores(inputs.users, inputs.candidates, inputs.user_all, inputs.item_all)
    draws = torch.rand(len(inputs.users), device=scores.device)
    return Negatives(items=one_of_the_hardest(scores, inputs.candidates, inputs.settings.dns_top, draws))


SAMPLER = NegativeSampler(stateless(_select), least_candidates=2)
