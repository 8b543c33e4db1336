"""Uniform negatives: all items that the user did not interact with are equally likely.

Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, stateless

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import SelectionInputs

__all__ = ["SAMPLER", "take_first"]


def take_first(inputs: SelectionInputs) -> Negatives:
    """Return the first candidate of each positive: candidates are drawn independently, so any one will do."""
    return Negatives(items=inputs.candidates[:, 0])  # [B]


SAMPLER = NegativeSampler(stateless(take_first), needs_candidates=False)
