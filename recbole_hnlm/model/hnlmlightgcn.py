r"""HNLMLightGCN: LightGCN trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    Xiangnan He et al. "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation." in SIGIR 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from recbole.model.general_recommender.lightgcn import LightGCN

from recbole_hnlm.model.mixin import HNLMMixin
from recbole_hnlm.model.propagation import SymmetricAdjacency, normalized_adjacency, propagate_mean

if TYPE_CHECKING:
    import torch

__all__ = ["HNLMLightGCN"]


class HNLMLightGCN(HNLMMixin, LightGCN):
    """LightGCN as RecBole initialises it, encoded by our propagation and trained by :class:`HNLMMixin`.

    With the semantic weights at 0 and ``negative_sampler: uniform`` its loss, gradients and scores are those of RecBole's
    LightGCN.
    """

    def get_norm_adj_mat(self) -> SymmetricAdjacency:
        """Return the normalised adjacency of the training interactions; RecBole's constructor calls this."""
        users, items = (np.asarray(ids, dtype=np.int64) for ids in (self.interaction_matrix.row, self.interaction_matrix.col))
        return normalized_adjacency(users, items, self.n_users, self.n_items)

    def ego_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding tables of users ``[U, d]`` and items ``[I, d]``."""
        return self.user_embedding.weight, self.item_embedding.weight

    def encode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the propagated embeddings of users ``[U, d]`` and items ``[I, d]``."""
        return propagate_mean(self.norm_adj_matrix, *self.ego_embeddings(), self.n_layers)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode, under the name that RecBole's LightGCN uses."""
        return self.encode()
