r"""HNLMBPR: matrix factorisation trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    Steffen Rendle et al. "BPR: Bayesian Personalized Ranking from Implicit Feedback." in UAI 2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole.model.general_recommender.bpr import BPR

from recbole_hnlm.model.mixin import HNLMMixin

if TYPE_CHECKING:
    import torch

__all__ = ["HNLMBPR"]


class HNLMBPR(HNLMMixin, BPR):
    """RecBole's BPR trained by :class:`HNLMMixin`; at ``reg_weight: 0`` and semantic weights 0 the loss is RecBole's."""

    def ego_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding tables of users ``[U, d]`` and items ``[I, d]``."""
        return self.user_embedding.weight, self.item_embedding.weight

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tables: nothing is propagated."""
        return self.ego_embeddings()
