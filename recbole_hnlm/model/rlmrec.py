r"""RLMRec: ties collaborative embeddings to profile vectors, by contrast or by reconstruction.

Symbols: e_x the backbone's output of node x (a user or an item), s_x its profile vector, d and T their sizes, t the key
``rlmrec_temperature``, w the key ``rlmrec_weight``, cos the cosine.

- RLMRec-Con: ``w * [C(users) + C(items)]`` with
  ``C = -mean_b log( exp(cos(e_x, f(s_x)) / t) / sum_y exp(cos(e_x, f(s_y)) / t) )`` over the batch's users (positives) x = x_b
  that have a profile; y runs over all users (items) that have one. f is an MLP from T to d, shared by users and items.
- RLMRec-Gen: at every step one learned vector replaces the embeddings of a share ``rlmrec_mask_ratio`` of the nodes before
  propagation, and ``w * -mean_x log( exp(cos(g(e_x), s_x) / t) / sum_y exp(cos(g(e_x), s_y) / t) )`` over those nodes x and y
  alone, users and items together, has e_x predict the profile. g is an MLP from d to T. Ranking uses the same propagation.

f and g have one hidden layer of (T + d) / 2 units and LeakyReLU.

Source: Ren, Wei, Xia, Su, Cheng, Wang, Yin and Huang, "Representation Learning with Large Language Models for Recommendation",
WWW 2024 (arXiv 2310.15950). What y runs over, the MLPs, the learned vector (zeros at first), the general defaults of the keys
and that SGL's views are drawn from the masked embeddings too were read from the public repository HKUDS/RLMRec.
Departures: that code also contrasts the chosen negatives, and contrasts items within the batch only; here the term does not
depend on the negative sampler and treats both sides alike. Nodes without a profile are neither masked nor contrasted. Its
edge dropout and its L2 over all parameters are left out; L2 is the backbone's own.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recbole_hnlm.model.losses import info_nce_against, info_nce_over_table
from recbole_hnlm.model.text_rival import TextRivalMixin, number_of, own_randomness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["RLMRecConMixin", "RLMRecGenMixin", "masked_nodes", "profile_contrast", "profile_mlp", "profile_reconstruction"]


def profile_mlp(input_size: int, output_size: int) -> nn.Sequential:
    """Return Linear, LeakyReLU, Linear with the mean of both sizes between; weights Xavier-uniform, biases zero."""
    hidden = (input_size + output_size) // 2
    layers = (nn.Linear(input_size, hidden), nn.Linear(hidden, output_size))
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.LeakyReLU(), layers[1])


def profile_contrast(
    embeddings: torch.Tensor, mapped: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return RLMRec-Con's C of one side, a scalar; 0 where no row has a profile.

    Args:
        embeddings: e, ``[n, d]``.
        mapped: f(s) of the nodes that have a profile, in the order of their ids, ``[m, d]``.
        mask: which nodes have a profile, m of them, bool ``[n]``.
        ids: nodes of the batch, repetitions allowed, int64 ``[B]``.
        temperature: t > 0.
    """
    ids = ids[mask[ids]]
    if len(ids) == 0:
        return embeddings.new_zeros(())
    places = mask.cumsum(dim=0) - 1  # [n], row in ``mapped``
    return info_nce_over_table(embeddings[mask], mapped, places[ids], temperature)


def profile_reconstruction(rebuilt: torch.Tensor, profiles: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return RLMRec-Gen's mean, a scalar.

    Args:
        rebuilt: g(e) of the masked nodes, ``[n, T]``, n >= 1.
        profiles: s of the same nodes, ``[n, T]``.
        temperature: t > 0.
    """
    return info_nce_against(rebuilt, profiles, torch.arange(len(rebuilt), device=rebuilt.device), temperature)


def masked_nodes(known: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Draw ``max(1, floor(ratio * n))`` of the nodes ``known`` (int64 ``[n]``) without replacement."""
    count = max(1, int(ratio * len(known)))
    return known[torch.randperm(len(known), generator=generator)[:count].to(known.device)]


class _RLMRecMixin(TextRivalMixin):
    """The keys and the name of the term."""

    training_only = (*TextRivalMixin.training_only, "profile_mlp.", "mask_token")

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone and read the keys.

        Raises:
            ConfigError: a key is out of range.
        """
        super().__init__(config, dataset)
        self.rlmrec_weight = number_of(config, "rlmrec_weight", 0)
        self.rlmrec_temperature = number_of(config, "rlmrec_temperature", 0, above=True)
        self.loss_part_names += ("rlmrec",)


class RLMRecConMixin(_RLMRecMixin):
    """RLMRec-Con on the backbone that follows in the bases; see :mod:`recbole_hnlm.model.rlmrec`."""

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone and f.

        Raises:
            ConfigError: a key is out of range.
        """
        super().__init__(config, dataset)
        if self.has_texts:
            with own_randomness(config):
                self.profile_mlp = profile_mlp(self.texts.dim, int(config["embedding_size"]))

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the backbone's terms and the contrast."""
        total, texts = propagated.user_all.new_zeros(()), self.texts
        sides = (
            (propagated.user_all, texts.user_vectors, texts.user_mask, users),
            (propagated.item_all, texts.item_vectors, texts.item_mask, positives),
        )
        if self.rlmrec_weight > 0:
            for embeddings, vectors, mask, ids in sides:
                mapped = self.profile_mlp(vectors[mask].float())
                total = total + profile_contrast(embeddings, mapped, mask, ids, self.rlmrec_temperature)
        return {**super().auxiliary_terms(propagated, users, positives), "rlmrec": self.rlmrec_weight * total}


class RLMRecGenMixin(_RLMRecMixin):
    """RLMRec-Gen on the backbone that follows in the bases; see :mod:`recbole_hnlm.model.rlmrec`.

    The nodes masked in an epoch follow from ``seed`` and the epoch alone. With ``rlmrec_weight`` 0 none are masked.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone, g and the vector that masked nodes take.

        Raises:
            ConfigError: a key is out of range.
        """
        super().__init__(config, dataset)
        self.rlmrec_mask_ratio = number_of(config, "rlmrec_mask_ratio", 0, 1, above=True)
        if self.has_texts:
            with own_randomness(config):
                self.profile_mlp = profile_mlp(int(config["embedding_size"]), self.texts.dim)
        self.mask_token = nn.Parameter(torch.zeros(int(config["embedding_size"])))
        self._masked: torch.Tensor | None = None

    @cached_property
    def _known(self) -> torch.Tensor:
        """Nodes with a profile, users first, then items, int64 ``[n]``."""
        return torch.cat([self.texts.user_mask, self.texts.item_mask]).nonzero().squeeze(1)

    def training_propagation(self, with_hops: bool) -> Propagated:
        """Draw the nodes to mask and propagate without their embeddings."""
        if self.rlmrec_weight > 0:
            self._masked = masked_nodes(self._known, self.rlmrec_mask_ratio, self.generator)
        return super().training_propagation(with_hops)

    def input_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tables, the masked nodes' rows replaced while a training step is under way."""
        users, items = super().input_embeddings()
        if self._masked is None or not self.training:
            return users, items
        masked = self.mask_token.expand(len(self._masked), -1)
        nodes = torch.cat([users, items]).index_copy(0, self._masked, masked)
        return nodes[: self.n_users], nodes[self.n_users :]

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the backbone's terms, made of masked embeddings as well, and the reconstruction; the step's mask ends here."""
        terms = dict(super().auxiliary_terms(propagated, users, positives))
        loss = propagated.user_all.new_zeros(())
        if self._masked is not None:
            outputs = torch.cat([propagated.user_all, propagated.item_all]).index_select(0, self._masked)  # [n, d]
            profiles = (
                torch.cat([self.texts.user_vectors, self.texts.item_vectors]).index_select(0, self._masked).float()
            )  # [n, T]
            loss = profile_reconstruction(self.profile_mlp(outputs), profiles, self.rlmrec_temperature)
        self._masked = None
        return {**terms, "rlmrec": self.rlmrec_weight * loss}
