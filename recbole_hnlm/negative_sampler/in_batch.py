"""In-batch negatives: the positive of another row of the batch that this row's user did not interact with.

An item is drawn in proportion to how often it occurs in the batch, hence by popularity, and its embedding is in the step
anyway. Source: the in-batch negatives of Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Recommendations with
Recurrent Neural Networks", ICLR 2016, section 3.1.2, and Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus
Item Recommendations", RecSys 2019, section 3. Departures: one negative a row, as the pairwise loss wants; the user's training
items are left out; no correction for popularity, which ``mix_weight`` and ``popularity`` are there to compare with.

``num_candidates`` rows are drawn for each row and the first admissible one is taken. Where none is (the rest of an epoch may
be a batch of one row), the one uniform candidate that the loader brings stands in; how many came from the batch is counted
and logged with every epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, Selector
from recbole_hnlm.utils.pairs import PairSet

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs

__all__ = ["SAMPLER", "first_admissible"]

_COUNT = "negatives from the batch"


def first_admissible(items: torch.Tensor, admissible: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """Return each row's first admissible item, or its stand-in.

    Args:
        items: int64 ``[B, K]``.
        admissible: bool ``[B, K]``.
        otherwise: int64 ``[B]``.

    Returns:
        int64 ``[B]``.
    """
    place = admissible.int().argmax(dim=1, keepdim=True)  # the first of several
    return torch.where(admissible.any(dim=1), items.gather(1, place).squeeze(1), otherwise)


class InBatchSelector(Selector):
    """Knows which pairs are training positives."""

    count_names = (_COUNT,)

    def __init__(self, context: SamplerContext) -> None:
        """Index the training pairs."""
        super().__init__()
        training = context.training()
        self._positives = PairSet(torch.from_numpy(training.users), torch.from_numpy(training.items), context.n_items)

    def select(self, inputs: SelectionInputs) -> Negatives:
        """Draw rows of the batch and take the first whose item the user did not interact with."""
        size = len(inputs.users)
        rows = torch.randint(size, (size, inputs.settings.num_candidates), device=inputs.users.device)
        items = inputs.positives[rows]  # [B, K]
        admissible = ~self._positives.contains(inputs.users.unsqueeze(1), items)
        chosen = first_admissible(items, admissible, inputs.candidates[:, 0])
        return Negatives(items=chosen, counts={_COUNT: int(admissible.any(dim=1).sum())})


SAMPLER = NegativeSampler(InBatchSelector, needs_candidates=False)
