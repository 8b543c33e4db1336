r"""HNLMNGCF: NGCF trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    Xiang Wang et al. "Neural Graph Collaborative Filtering." in SIGIR 2019.
"""

from __future__ import annotations

import numpy as np
import torch
from recbole.model.general_recommender.ngcf import NGCF

from recbole_hnlm.model.losses import embedding_regularization
from recbole_hnlm.model.mixin import HNLMMixin
from recbole_hnlm.model.propagation import SymmetricAdjacency, normalized_adjacency, propagate_once
from recbole_hnlm.model.unit_messages import unit_messages
from recbole_hnlm.negative_sampler.hops import Propagated, pool_hops

__all__ = ["HNLMNGCF"]


class HNLMNGCF(HNLMMixin, NGCF):
    """RecBole's NGCF by our propagation, trained by :class:`HNLMMixin`.

    Outputs are the concatenated layers, and L2 regularises outputs, both as in RecBole; with the semantic weights at 0
    and ``negative_sampler: uniform`` loss, gradients and scores are RecBole's.
    """

    pooling = "concat"

    def get_norm_adj_mat(self) -> SymmetricAdjacency:
        """Return the normalised adjacency of the training interactions; RecBole's constructor calls this."""
        users, items = (np.asarray(ids, dtype=np.int64) for ids in (self.interaction_matrix.row, self.interaction_matrix.col))
        return normalized_adjacency(users, items, self.n_users, self.n_items)

    def get_eye_mat(self) -> torch.Tensor:
        """Return nothing: RecBole's layer takes an identity matrix and does not use it."""
        return torch.empty(0)

    def ego_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding tables of users ``[U, d_0]`` and items ``[I, d_0]``."""
        return self.user_embedding.weight, self.item_embedding.weight

    @property
    def hop_sizes(self) -> tuple[int, ...]:
        """Return the width of each layer, the embeddings' first."""
        return tuple(int(size) for size in self.hidden_size_list)

    def propagate_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return layers 0 to L of users, ``[U, d_l]``, and of items, ``[I, d_l]``.

        Formula: ``E_{l+1} = normalize(dropout(LeakyReLU((A E_l + E_l) W_1 + (A E_l * E_l) W_2)))``. Source: NGCF, section 2.2,
        with the departures of RecBole's (the self-connection has no term in W_2).
        """
        nodes = torch.cat(self.ego_embeddings())  # [N, d_0]
        layers = [nodes]
        matrix = self._dropped_matrix() if self.node_dropout != 0 and self.training else None
        for layer in self.GNNlayers:
            near = propagate_once(self.norm_adj_matrix, nodes) if matrix is None else torch.sparse.mm(matrix, nodes)
            nodes = layer.linear(nodes + near) + layer.interActTransform(near * nodes)
            nodes = unit_messages(nodes, self.message_dropout, self.training)
            layers.append(nodes)
        return tuple(layer[: self.n_users] for layer in layers), tuple(layer[self.n_users :] for layer in layers)

    def _dropped_matrix(self) -> torch.Tensor:
        """Drop entries of the matrix as RecBole does, each direction of an edge for itself."""
        return self.sparse_dropout(self.norm_adj_matrix.as_torch().to_sparse_coo().to(self.device))

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the concatenated layers, users ``[U, d]`` and items ``[I, d]``."""
        users, items = self.propagate_hops()
        return pool_hops(users, self.pooling), pool_hops(items, self.pooling)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Propagate, under the name that RecBole's NGCF uses."""
        return self.propagate()

    def regularization(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
    ) -> torch.Tensor:
        """Return the regularisation of the batch's outputs, a scalar."""
        item_rows = propagated.item_all.index_select(0, torch.cat([positives, negatives])).chunk(2)
        return embedding_regularization((propagated.user_all.index_select(0, users), *item_rows), self.require_pow)
