r"""HNLMNCL: NCL trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    Zihan Lin et al. "Improving Graph Collaborative Filtering with Neighborhood-enriched Contrastive Learning." in WWW 2022.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.losses import info_nce_against, info_nce_over_table
from recbole_hnlm.model.mixin import HNLMMixin
from recbole_hnlm.model.propagation import propagate_hops
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.utils.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HNLMNCL"]

_STATE = ("user_centroids", "user_2cluster", "item_centroids", "item_2cluster")


def _faiss() -> Any:
    # It announces each build for another processor that it tries to load, as if that were an error.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise MissingDependencyError(
            'model HNLMNCL clusters with the package faiss, which is not installed: pip install "recbole-hnlm[ncl]"'
        ) from error


class HNLMNCL(HNLMMixin, LightGraphBackbone):
    """LightGCN with NCL's contrasts: with the node's even neighbourhood, and with the prototype of its cluster.

    Formulas: ``structure = ssl_reg * [InfoNCE(u(2k), u(0)) + alpha InfoNCE(i(2k), i(0))]``, layer 2k (k = ``hyper_layers``) of
    the batch's nodes against all embeddings (NCL, section 3.2), and
    ``prototype = proto_reg * [InfoNCE(u(0), c_u) + InfoNCE(i(0), c_i)]`` against the k-means centroids (section 3.3).

    Departures from RecBole's NCL: both are means over the batch, there sums, so that its weights are ours divided by B;
    clustering starts with the epoch ``warm_up_step``, before which nothing reads it; the padding rows are not clustered.
    """

    auxiliary_names = ("structure", "prototype")

    def __init__(self, config: Any, dataset: Any) -> None:
        """Read the keys.

        Raises:
            MissingDependencyError: faiss is not installed.
            ConfigError: there are more clusters than users or items.
        """
        _faiss()
        super().__init__(config, dataset)
        self.ssl_temp, self.ssl_reg, self.alpha = (float(config[key]) for key in ("ssl_temp", "ssl_reg", "alpha"))
        self.proto_reg, self.num_clusters = float(config["proto_reg"]), int(config["num_clusters"])
        self.hyper_layers, self.m_step, self.warm_up_step = (
            int(config[key]) for key in ("hyper_layers", "m_step", "warm_up_step")
        )
        most = min(self.n_users, self.n_items) - 1
        if not 1 <= self.num_clusters <= most:
            raise ConfigError(f"num_clusters is {self.num_clusters}, expected 1 to {most}, the smaller of users and items")
        if self.hyper_layers < 1 or self.m_step < 1:
            raise ConfigError(f"hyper_layers is {self.hyper_layers} and m_step {self.m_step}, expected at least 1 each")
        self._seed = int(config["seed"])
        self.user_centroids: torch.Tensor | None = None
        self.user_2cluster: torch.Tensor | None = None
        self.item_centroids: torch.Tensor | None = None
        self.item_2cluster: torch.Tensor | None = None
        self.other_parameter_name = [*self.other_parameter_name, *_STATE]

    def start_epoch(self, epoch: int) -> None:
        """Cluster anew every ``m_step`` epochs, once warmed up."""
        super().start_epoch(epoch)
        if epoch >= self.warm_up_step and (self.user_centroids is None or epoch % self.m_step == 0):
            self.e_step()

    def e_step(self) -> None:
        """Cluster the embeddings of users and of items into prototypes."""
        self.user_centroids, self.user_2cluster = self.run_kmeans(self.user_embedding.weight)
        self.item_centroids, self.item_2cluster = self.run_kmeans(self.item_embedding.weight)

    def run_kmeans(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cluster the rows of a table ``[n, d]``, the padding row aside.

        Returns:
            Centroids of unit length, float ``[num_clusters, d]``, and each row's cluster, int64 ``[n]`` (0 for the padding).
        """
        rows = np.ascontiguousarray(table.detach()[1:].cpu().numpy(), dtype=np.float32)
        kmeans = _faiss().Kmeans(d=rows.shape[1], k=self.num_clusters, seed=self._seed, min_points_per_centroid=1)
        kmeans.train(rows)
        nearest = kmeans.index.search(rows, 1)[1][:, 0]
        centroids = torch.nn.functional.normalize(torch.from_numpy(kmeans.centroids), dim=1)
        clusters = torch.from_numpy(np.concatenate([[0], nearest]).astype(np.int64))
        return centroids.to(self.device), clusters.to(self.device)

    def training_propagation(self, with_hops: bool) -> Propagated:
        """Propagate all layers, and keep layer ``2 * hyper_layers``, which may lie beyond those that are pooled."""
        context, pooled = 2 * self.hyper_layers, self.n_layers + 1
        users, items = propagate_hops(self.norm_adj_matrix, *self.ego_embeddings(), max(self.n_layers, context))
        return Propagated.of_hops(users[:pooled], items[:pooled], self.pooling, views=(users[context], items[context]))

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the contrast with neighbourhoods and, once there are clusters, with prototypes."""
        sides = ((users, self.user_centroids, self.user_2cluster), (positives, self.item_centroids, self.item_2cluster))
        structure, prototype = [], [propagated.user_all.new_zeros(())]
        for (ids, centroids, clusters), view, ego in zip(sides, propagated.views, self.ego_embeddings(), strict=True):
            structure.append(info_nce_over_table(view, ego, ids, self.ssl_temp))
            if centroids is not None and clusters is not None:
                prototype.append(info_nce_against(ego.index_select(0, ids), centroids, clusters[ids], self.ssl_temp))
        return {
            "structure": self.ssl_reg * (structure[0] + self.alpha * structure[1]),
            "prototype": self.proto_reg * torch.stack(prototype).sum(),
        }
