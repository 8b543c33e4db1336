r"""SimGCL: LightGCN with a contrast of two noisy propagations.

Reference:
    Junliang Yu et al. "Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for Recommendation." in SIGIR 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.losses import info_nce_against
from recbole_hnlm.model.propagation import propagate_hops, propagate_mean, propagate_once
from recbole_hnlm.negative_sampler.hops import pool_hops
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["SimGCL", "batch_contrast", "with_noise"]


def with_noise(nodes: torch.Tensor, uniform: torch.Tensor, norm: float) -> torch.Tensor:
    """Add noise of fixed length in each embedding's own orthant.

    Formula: ``e + norm * sign(e) * d / ||d||``, ``d ~ U(0, 1)^d``. Source: SimGCL, section 3.1. The noise has no gradient.

    Args:
        nodes: e, ``[N, d]``.
        uniform: d, ``[N, d]``.
        norm: epsilon, the length of the noise.
    """
    return nodes + norm * nodes.detach().sign() * F.normalize(uniform, dim=1)


def batch_contrast(one: torch.Tensor, other: torch.Tensor, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the InfoNCE of the batch's distinct nodes between two propagations, each against the others of the batch.

    Source: SimGCL, section 2 (the contrast of SGL within a batch), as a mean over nodes.

    Args:
        one: ``[n, d]``.
        other: ``[n, d]``.
        ids: rows of both, repetitions allowed, int64 ``[B]``.
        temperature: t > 0.
    """
    distinct = torch.unique(ids)
    targets = torch.arange(len(distinct), device=ids.device)
    return info_nce_against(one.index_select(0, distinct), other.index_select(0, distinct), targets, temperature)


class SimGCL(LightGraphBackbone):
    """SimGCL with all parts of the loss as means.

    Outputs average the layers 1 to L, without the embeddings themselves (SimGCL, section 3.1).
    """

    auxiliary_names = ("ssl",)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Read the keys.

        Raises:
            ConfigError: there is no layer to put noise on.
        """
        super().__init__(config, dataset)
        self.ssl_tau, self.ssl_weight = float(config["ssl_tau"]), float(config["ssl_weight"])
        self.noise_norm = float(config["noise_norm"])
        if self.n_layers < 1:
            raise ConfigError(f"n_layers is {self.n_layers}, expected at least 1: noise is added to propagated embeddings")

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean of layers 1 to L, which is one step from the mean of layers 0 to L - 1; no noise."""
        nodes = torch.cat(propagate_mean(self.norm_adj_matrix, *self.ego_embeddings(), self.n_layers - 1))
        nodes = propagate_once(self.norm_adj_matrix, nodes)
        return nodes[: self.n_users], nodes[self.n_users :]

    def propagate_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return layers 1 to L of users and of items, without noise."""
        users, items = propagate_hops(self.norm_adj_matrix, *self.ego_embeddings(), self.n_layers)
        return users[1:], items[1:]

    @property
    def hop_sizes(self) -> tuple[int, ...]:
        """Return d for each of the layers 1 to L."""
        return (int(self.latent_dim),) * int(self.n_layers)

    def noisy_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return layers 1 to L of users and of items, with noise added after each propagation."""
        nodes, layers = torch.cat(self.ego_embeddings()), []
        for _ in range(self.n_layers):
            nodes = propagate_once(self.norm_adj_matrix, nodes)
            nodes = with_noise(nodes, torch.rand_like(nodes), self.noise_norm)
            layers.append(nodes)
        return tuple(layer[: self.n_users] for layer in layers), tuple(layer[self.n_users :] for layer in layers)

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the contrast of two noisy propagations."""
        views = [[pool_hops(side, "mean") for side in self.noisy_hops()] for _ in range(2)]
        terms = [
            batch_contrast(one, other, ids, self.ssl_tau) for one, other, ids in zip(*views, (users, positives), strict=True)
        ]
        return {"ssl": self.ssl_weight * (terms[0] + terms[1])}
