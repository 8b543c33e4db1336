"""LightGCN by our propagation: the base of every backbone that propagates linearly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from recbole.model.general_recommender.lightgcn import LightGCN

from recbole_hnlm.model.backbone import PairwiseBackbone
from recbole_hnlm.model.propagation import SymmetricAdjacency, normalized_adjacency, propagate_hops, propagate_mean

if TYPE_CHECKING:
    import torch

__all__ = ["LightGraphBackbone"]


class LightGraphBackbone(PairwiseBackbone, LightGCN):
    """LightGCN as RecBole initialises it, by our propagation.

    Source: He et al., "LightGCN", SIGIR 2020. Loss, gradients and scores are those of RecBole's LightGCN.
    """

    def get_norm_adj_mat(self) -> SymmetricAdjacency:
        """Return the normalised adjacency of the training interactions; RecBole's constructor calls this."""
        users, items = (np.asarray(ids, dtype=np.int64) for ids in (self.interaction_matrix.row, self.interaction_matrix.col))
        return normalized_adjacency(users, items, self.n_users, self.n_items)

    def ego_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding tables of users ``[U, d]`` and items ``[I, d]``."""
        return self.user_embedding.weight, self.item_embedding.weight

    def input_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is propagated, layer 0 of users ``[U, d]`` and items ``[I, d]``: the tables as they are."""
        return self.ego_embeddings()

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the propagated embeddings of users ``[U, d]`` and items ``[I, d]``."""
        return propagate_mean(self.norm_adj_matrix, *self.input_embeddings(), self.n_layers)

    def propagate_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return layers 0 (what is propagated) to L of users, each ``[U, d]``, and of items, each ``[I, d]``."""
        return propagate_hops(self.norm_adj_matrix, *self.input_embeddings(), self.n_layers)

    @property
    def hop_sizes(self) -> tuple[int, ...]:
        """Return d for each of the layers 0 to L."""
        return (int(self.latent_dim),) * (int(self.n_layers) + 1)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Propagate, under the name that RecBole's LightGCN uses."""
        return self.propagate()
