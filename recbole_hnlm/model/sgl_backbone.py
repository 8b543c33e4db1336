"""SGL over our propagation: the base of the models that contrast two views of the graph.

Reference:
    Jiancan Wu et al. "Self-supervised Graph Learning for Recommendation." in SIGIR 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.graph_views import VIEW_TYPES, draw_view
from recbole_hnlm.model.losses import info_nce_over_table
from recbole_hnlm.model.propagation import SymmetricAdjacency, propagate_mean, propagate_once
from recbole_hnlm.negative_sampler.hops import pool_hops
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["SGLBackbone"]


class SGLBackbone(LightGraphBackbone):
    """LightGCN with SGL's contrast of two views of the graph, drawn anew for every epoch.

    Formula: ``ssl_weight * [InfoNCE(u', u'') + InfoNCE(i', i'')]``, the batch's nodes of one view against *all* nodes of the
    other (SGL, section 3.2). Departure from RecBole's SGL: its ranking and contrast are sums over the batch and its L2 is
    not, here all are means; its loss is B times ours when its ``reg_weight`` is B times ours.
    """

    auxiliary_names = ("ssl",)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Read the keys and the graph.

        Raises:
            ConfigError: SGL has no such ``type`` or ``drop_ratio``.
        """
        super().__init__(config, dataset)
        self.view_type, self.drop_ratio = str(config["type"]), float(config["drop_ratio"])
        self.ssl_tau, self.ssl_weight = float(config["ssl_tau"]), float(config["ssl_weight"])
        if self.view_type not in VIEW_TYPES:
            raise ConfigError(f"type is {self.view_type!r}, expected one of {', '.join(VIEW_TYPES)} (SGL's views)")
        if not 0 <= self.drop_ratio < 1:
            raise ConfigError(f"drop_ratio is {self.drop_ratio}, expected at least 0 and below 1")
        self._users, self._items = (
            np.asarray(ids, dtype=np.int64) for ids in (self.interaction_matrix.row, self.interaction_matrix.col)
        )
        self._views: list[list[SymmetricAdjacency]] = []

    def start_epoch(self, epoch: int) -> None:
        """Draw the two views of the epoch."""
        super().start_epoch(epoch)
        self._views = [self._draw_view() for _ in range(2)]

    def _draw_view(self) -> list[SymmetricAdjacency]:
        sizes, count = (self.n_users, self.n_items), self.n_layers if self.view_type == "RW" else 1
        return [
            draw_view(self.view_type, self._users, self._items, sizes, self.drop_ratio).to(self.device) for _ in range(count)
        ]

    def _propagate_view(self, view: list[SymmetricAdjacency]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.view_type != "RW":
            return propagate_mean(view[0], *self.input_embeddings(), self.n_layers)
        layers = [torch.cat(self.input_embeddings())]
        for adjacency in view:
            layers.append(propagate_once(adjacency, layers[-1]))
        nodes = pool_hops(layers, "mean")
        return nodes[: self.n_users], nodes[self.n_users :]

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the contrast of the two views."""
        if not self._views:
            self._views = [self._draw_view() for _ in range(2)]
        one, other = (self._propagate_view(view) for view in self._views)
        terms = [info_nce_over_table(a, b, ids, self.ssl_tau) for a, b, ids in zip(one, other, (users, positives), strict=True)]
        return {"ssl": self.ssl_weight * (terms[0] + terms[1])}
