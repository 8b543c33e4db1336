r"""MixGCF: a synthetic negative, mixed from layers of hard candidates with some of the positive injected.

Formulas: positive mixing ``e'_j(l) = a_l e_i(l) + (1 - a_l) e_j(l)`` with ``a_l ~ U(0, 1)`` for each pair and layer; hop mixing
takes from every layer l the candidate ``argmax_j q_u(l) . e'_j(l)`` and pools the layers as the backbone pools its own.
Source: Huang, Dong, Ding, Yang, Feng, Wang and Tang, "MixGCF: An Improved Training Method for Graph Neural Network-based
Recommender Systems", KDD 2021; both formulas were read from the public repository huangtinglin/MixGCF. There as here the query
q_u is u's pooled output, or its own layer where layers are concatenated.

The mixed candidates are never formed: a_l is the same for all candidates of a pair, so that
``q . e'_j = a_l (q . e_i) + (1 - a_l)(q . e_j)`` has its maximum where ``q . e_j`` has, and only the chosen one is mixed.
On a backbone without layers (matrix factorisation) this is positive mixing of the hardest candidate. Gradient reaches the
positive and the chosen items at every layer. Departure: L2 regularises the item chosen at the first layer; that repository
regularises the mixture there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, stateless
from recbole_hnlm.negative_sampler.dns import hardest_candidates
from recbole_hnlm.negative_sampler.hops import pool_hops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.negative_sampler.base import SelectionInputs
    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["SAMPLER", "hardest_by_hop", "layer_queries", "mix_positive", "mixed_negatives"]


def mix_positive(positives: torch.Tensor, negatives: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return ``a * e_i + (1 - a) * e_j``; embeddings are ``[B, d_l]``, shares ``[B, 1]`` in [0, 1)."""
    return shares * positives + (1.0 - shares) * negatives


def hardest_by_hop(users: torch.Tensor, candidates: torch.Tensor, propagated: Propagated) -> list[torch.Tensor]:
    """Return for each layer the candidate ``argmax_j q_u(l) . e_j(l)``, int64 ``[B]`` each.

    Args:
        users: int64 ``[B]``.
        candidates: int64 ``[B, K]``.
        propagated: outputs and layers.
    """
    return [hardest_candidates(users, candidates, query, layer) for query, layer in layer_queries(propagated)]


def layer_queries(propagated: Propagated) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return for each layer what its items ``[I, d_l]`` are compared with: q_u of all users, ``[U, d_l]``."""
    pooled = propagated.pooling == "mean"
    queries = [propagated.user_all] * len(propagated.item_hops) if pooled else propagated.user_hops
    return list(zip(queries, propagated.item_hops, strict=True))


def mixed_negatives(inputs: SelectionInputs, chosen: Sequence[torch.Tensor]) -> Negatives:
    """Mix the candidate chosen at each layer, int64 ``[B]``, with the positive, and pool the layers."""
    mixed = []
    for items, layer in zip(chosen, inputs.propagated.item_hops, strict=True):
        positive, negative = layer.index_select(0, torch.cat([inputs.positives, items])).chunk(2)  # [B, d_l] each
        shares = torch.rand(len(items), 1, device=layer.device, dtype=layer.dtype)
        mixed.append(mix_positive(positive, negative, shares))
    return Negatives(items=chosen[0], embeddings=pool_hops(mixed, inputs.propagated.pooling))


def _select(inputs: SelectionInputs) -> Negatives:
    return mixed_negatives(inputs, hardest_by_hop(inputs.users, inputs.candidates, inputs.propagated))


SAMPLER = NegativeSampler(stateless(_select), reads_hops=True)
