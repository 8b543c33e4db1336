"""Popularity negatives: an item is drawn in proportion to (its training count) ** popularity_alpha.

Source: Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", NeurIPS 2013,
section 2.2 (power 3/4); for recommendation, Chen et al., "On Sampling Strategies for Neural Network-based Collaborative
Filtering", KDD 2017.
"""

from __future__ import annotations

from recbole_hnlm.negative_sampler.base import NegativeSampler, stateless
from recbole_hnlm.negative_sampler.uniform import take_first

__all__ = ["SAMPLER"]

SAMPLER = NegativeSampler(stateless(take_first), distribution="popularity", needs_candidates=False)
