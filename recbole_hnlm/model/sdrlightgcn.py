r"""SDRLightGCN: LightGCN whose preferences over all items are drawn towards those that the texts suggest, ProMax's SDR.

Symbols: n distinct users of a batch, U users and I items including the padding id 0, m items with text, d the embedding size, T
the size of text vectors.

Formula: with a_x the PCA-whitened text vector of node x, e_x its output and t the key ``sdr_temperature``,
``p_u = softmax_i(cos(a_u, a_i) / t)`` and ``q_u = softmax_i(cos(e_u, e_i) / t)`` over the items i with text, the loss takes

.. math:: \text{sdr\_weight} \cdot \frac{1}{n} \sum_u w_u \Big( -\sum_i p_{ui} \ln q_{ui} \Big), \qquad
    w_u = \min\big(1, \max\big(0.1,\; 1 - H(p_u) / \ln m\big)\big),

H the entropy, so that a user whose text says little weighs little; p takes no gradient.

Source: ProMax, SIGIR 2026 (arXiv 2604.26231), its semantic distribution regularisation; formula, bounds and keys were read from
the public repository BlueGhostYi/ProRec. Departures: users and items are centred separately but share the axes of all, so
that their coordinates mean the same (there, each side has its own); outputs are LightGCN's mean of layers 0 to L, there the
sum of layers 1 to L. Its second term contrasts with a graph that an LLM has ranked anew; it is left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.text_rival import TextRivalMixin, number_of
from recbole_hnlm.model.textinitlightgcn import principal_axes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["SDRLightGCN", "distribution_loss", "whitened"]

_LEAST_WEIGHT = 0.1


def whitened(users: torch.Tensor, items: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return users ``[U, k]`` and items ``[m, k]`` on the first k <= ``count`` principal axes of all, of variance 1 on each.

    Args:
        users: text vectors ``[U, T]``.
        items: text vectors ``[m, T]``.
        count: axes at most.
    """
    sides = [side.double() - side.double().mean(dim=0) for side in (users, items)]
    both = torch.cat(sides)
    axes = principal_axes(both, count)
    scale = (both @ axes).square().mean(dim=0).sqrt()
    first, second = (((side @ axes) / scale).float() for side in sides)
    return first, second


def distribution_loss(
    users: torch.Tensor, items: torch.Tensor, user_texts: torch.Tensor, item_texts: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the mean of the formula above, without ``sdr_weight``, a scalar.

    Args:
        users: e of the users, ``[n, d]``, n >= 1.
        items: e of all items with text, ``[m, d]``, m >= 2.
        user_texts: a of the users, ``[n, k]``.
        item_texts: a of the items, ``[m, k]``.
        temperature: t > 0.
    """
    with torch.no_grad():
        near = F.normalize(user_texts, dim=1) @ F.normalize(item_texts, dim=1).t()  # [n, m]
        wanted = F.log_softmax(near / temperature, dim=1)
        shares = wanted.exp()
        entropy = -(shares * wanted).sum(dim=1)
        weights = (1.0 - entropy / math.log(len(items))).clamp(_LEAST_WEIGHT, 1.0)
    scores = F.normalize(users, dim=1) @ F.normalize(items, dim=1).t() / temperature
    # The shares sum to 1, so that the log of the softmax need not be formed.
    return (weights * (scores.logsumexp(dim=1) - (shares * scores).sum(dim=1))).mean()


class SDRLightGCN(TextRivalMixin, LightGraphBackbone):
    """LightGCN with the term above; with ``sdr_weight`` 0 its loss is LightGCN's."""

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build LightGCN and whiten the texts.

        Raises:
            ConfigError: a key is out of range.
            ArtifactError: as :class:`recbole_hnlm.model.text_rival.TextRivalMixin`.
        """
        super().__init__(config, dataset)
        self.sdr_weight = number_of(config, "sdr_weight", 0)
        self.sdr_temperature = number_of(config, "sdr_temperature", 0, above=True)
        self.loss_part_names += ("sdr",)
        if not self.has_texts:  # a trained model is loaded, to rank
            return
        texts = self.texts
        self._known = (texts.user_mask, texts.item_mask.nonzero().squeeze(1))
        users, items = whitened(texts.user_vectors[texts.user_mask], texts.item_vectors[texts.item_mask], int(self.latent_dim))
        # In a list, so that the module neither saves nor broadcasts what follows from the data.
        self._whitened = [torch.zeros(len(texts.user_mask), users.shape[1], device=users.device), items]
        self._whitened[0][texts.user_mask] = users

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the backbone's terms and SDR over the batch's distinct users."""
        loss = propagated.user_all.new_zeros(())
        if self.sdr_weight > 0:
            has_text, items = self._known
            users = torch.unique(users)
            users = users[has_text[users]]
            if len(users) and len(items) > 1:
                outputs = (propagated.user_all.index_select(0, users), propagated.item_all.index_select(0, items))
                loss = distribution_loss(*outputs, self._whitened[0][users], self._whitened[1], self.sdr_temperature)
        return {**super().auxiliary_terms(propagated, users, positives), "sdr": self.sdr_weight * loss}
