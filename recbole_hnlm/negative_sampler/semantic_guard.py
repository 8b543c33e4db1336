r"""Semantic guard: DNS that leaves out candidates whose text is too near to what the user's text says they like.

A hard candidate that reads like the user's profile is likely an item that they would enjoy, a false negative.

Formula: ``x_uj = cos(t_u, t_j)`` of text vectors, ``s_uj = e_u . e_j``, ``z(.)`` standardised over the user's K candidates;
drop the ``floor(guard_drop_share * K)`` of largest ``x_uj`` and take ``argmax_j (z(s_uj) - guard_weight z(x_uj))`` of the rest.
Both are standardised, since scores start near zero: a weight on the raw scale would choose by text alone for the first epochs,
that is the easiest candidates, and a model hardly leaves that state (NDCG@20 .132 rather than .205 on amazon-cds-text).
t_j is the encoded text of item j, t_u the mean of the user's training items (``alignment_source: text``) or the encoded LLM
profile (``profile``). Source: this project. Candidates without text are neither dropped nor shifted; a user without text gets
plain DNS; how many negatives were chosen with text at hand is counted and logged with every epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, Selector
from recbole_hnlm.negative_sampler.dns import candidate_scores
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.scores import standardise_rows

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs

__all__ = ["SAMPLER", "guarded_choice"]

_COUNT = "negatives guarded by text"


def guarded_choice(
    scores: torch.Tensor, similarity: torch.Tensor, known: torch.Tensor, weight: float, drop: int
) -> torch.Tensor:
    """Return the column of the hardest candidate that the guard lets through, the first on a tie.

    Args:
        scores: e_u . e_j, float ``[B, K]``.
        similarity: cosine of the user's and the candidate's text, float ``[B, K]``.
        known: where both texts exist, bool ``[B, K]``; elsewhere ``similarity`` is not read.
        weight: of the standardised similarity, relative to the standardised score.
        drop: how many of the nearest are dropped, below K.

    Returns:
        int64 ``[B]``.
    """
    guarded = standardise_rows(scores) - weight * standardise_rows(similarity, known)
    if drop > 0:
        nearest = similarity.masked_fill(~known, -torch.inf).topk(drop, dim=1).indices
        dropped = torch.zeros_like(known).scatter_(1, nearest, value=True) & known
        guarded = guarded.masked_fill(dropped, -torch.inf)
    return guarded.argmax(dim=1)


class SemanticGuard(Selector):
    """Holds the unit text vectors of users and items."""

    count_names = (_COUNT,)

    def __init__(self, context: SamplerContext) -> None:
        """Normalise the text vectors; without any, choosing fails and everything else works."""
        super().__init__()
        self._weight = context.settings.guard_weight
        self._drop = int(context.settings.guard_drop_share * context.settings.num_candidates)
        texts = context.texts
        # In a list, so that the module neither saves nor broadcasts what follows from the data.
        self._tables = (
            [] if texts is None else [F.normalize(side.float(), dim=1) for side in (texts.user_vectors, texts.item_vectors)]
        )
        self._masks = [] if texts is None else [texts.user_mask, texts.item_mask]

    def select(self, inputs: SelectionInputs) -> Negatives:
        """Choose each positive's hardest candidate that does not read like the user's taste.

        Raises:
            ArtifactError: the model was built without text vectors.
        """
        if not self._tables:
            raise ArtifactError("negative_sampler semantic_guard has no text vectors; build them, or use dns")
        users, candidates = inputs.users, inputs.candidates
        known = self._masks[0][users].unsqueeze(1) & self._masks[1][candidates]  # [B, K]
        scores = candidate_scores(users, candidates, inputs.user_all, inputs.item_all)
        similarity = candidate_scores(users, candidates, *self._tables)
        place = guarded_choice(scores, similarity, known, self._weight, self._drop)
        chosen = candidates.gather(1, place.unsqueeze(1)).squeeze(1)
        return Negatives(items=chosen, counts={_COUNT: int(known.any(dim=1).sum())})


SAMPLER = NegativeSampler(SemanticGuard, least_candidates=2, reads_text=True)
