r"""DENS: a negative that lacks those factors of the positive that made the user choose it.

Gates split an embedding into factors that were relevant for the interaction and those that were not, at every layer l:

- ``e_i^r = e_i * sigmoid(W_i e_i + W_u e_u)``, ``e_i^ir = e_i - e_i^r``
- ``e_j^r = e_j * sigmoid(W_n e_j + W_p e_i^r)``, ``e_j^ir = e_j - e_j^r``

Of each layer the candidate ``argmax_j e_u . ((1 - w) e_j - e_j^r)`` is taken, ``w = min(1, epoch / dens_warmup_epochs)``: first
those with much in common in irrelevant factors (``e_j^ir``), in the end those with the least of the relevant ones. Layers are
pooled as the backbone pools its own; gradient reaches the chosen item of every layer. The gates learn from
``gamma / 4`` times the mean over pairs, s being inner products of pooled embeddings with the user's, of
``softplus(s_i^ir - s_i^r) + softplus(s_j^r - s_j^ir) + softplus(s_j^r - s_i^r) + softplus(s_i^ir - s_j^ir)``.

Source: Lai, Chen, Zhao, Chen and Han, "Disentangled Negative Sampling for Collaborative Filtering", WSDM 2023; gates (whose
weights W carry a bias), choice and loss were read from the public repository Riwei-HEU/DENS.
There as here L2 regularises the item chosen at the first layer. Departure: layers of different widths (NGCF) have separate
gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, Selector
from recbole_hnlm.negative_sampler.hops import pool_hops

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs

__all__ = ["SAMPLER", "FactorGates", "disentangling_loss", "factor_scores"]


def factor_scores(users: torch.Tensor, candidates: torch.Tensor, gates: torch.Tensor, progress: float) -> torch.Tensor:
    """Return ``e_u . ((1 - w) e_j - g_j * e_j)``, ``[B, K]``.

    Args:
        users: e_u, ``[B, d]``.
        candidates: e_j, ``[B, K, d]``.
        gates: g_j in [0, 1], ``[B, K, d]``.
        progress: w in [0, 1].
    """
    return torch.einsum("bd,bkd->bk", users, candidates * ((1.0 - progress) - gates))


def disentangling_loss(
    users: torch.Tensor, positive: tuple[torch.Tensor, torch.Tensor], negative: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the mean of the four softplus terms over pairs and terms, a scalar.

    Args:
        users: e_u, ``[B, d]``.
        positive: (e_i^r, e_i^ir), ``[B, d]`` each.
        negative: (e_j^r, e_j^ir), ``[B, d]`` each.
    """
    pos_r, pos_ir, neg_r, neg_ir = ((users * part).sum(dim=1) for part in (*positive, *negative))  # [B] each
    terms = (pos_ir - pos_r, neg_r - neg_ir, neg_r - pos_r, pos_ir - neg_ir)
    return torch.stack([F.softplus(term).mean() for term in terms]).mean()


class FactorGates(nn.Module):
    """The four linear maps of one layer width d."""

    def __init__(self, size: int) -> None:
        """Make d x d maps with biases."""
        super().__init__()
        self.of_user, self.of_item, self.of_positive, self.of_negative = (nn.Linear(size, size) for _ in range(4))

    def relevant_positive(self, users: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        """Return e_i^r, ``[B, d]``."""
        return positives * torch.sigmoid(self.of_item(positives) + self.of_user(users))

    def relevant_negative(self, relevant_positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return e_j^r, ``[B, d]``, of one negative per pair."""
        return negatives * torch.sigmoid(self.of_negative(negatives) + self.of_positive(relevant_positives))

    @torch.no_grad()
    def choose(self, layer: tuple[torch.Tensor, torch.Tensor], ids: tuple[torch.Tensor, ...], progress: float) -> torch.Tensor:
        """Return the candidate that the layer prefers, int64 ``[B]``.

        Args:
            layer: users ``[U, d]`` and items ``[I, d]``.
            ids: users ``[B]``, positives ``[B]``, candidates ``[B, K]``.
            progress: w.
        """
        (user_layer, item_layer), (users, positives, candidates) = layer, ids
        e_u = user_layer[users]  # [B, d]
        towards = self.of_positive(self.relevant_positive(e_u, item_layer[positives]))  # [B, d]
        gates = torch.sigmoid(self.of_negative(item_layer)[candidates] + towards.unsqueeze(1))  # [B, K, d]
        scores = factor_scores(e_u, item_layer[candidates], gates, progress)
        return candidates.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)


class DisentangledSelector(Selector):
    """Gates for each width of layers."""

    loss_name = "disentangle"

    def __init__(self, context: SamplerContext) -> None:
        """Make the gates that the backbone's layers need."""
        super().__init__()
        self.gates = nn.ModuleDict({str(size): FactorGates(size) for size in sorted(set(context.hop_sizes))})
        self.gates.to(context.device)

    def select(self, inputs: SelectionInputs) -> Negatives:
        """Choose a candidate per layer, pool the layers, and return the gates' loss with them."""
        propagated, settings = inputs.propagated, inputs.settings
        progress = min(1.0, self.epoch / settings.dens_warmup_epochs)
        ids = (inputs.users, inputs.positives, inputs.candidates)
        first, users, chosen, parts = None, [], [], []
        for user_layer, item_layer in zip(propagated.user_hops, propagated.item_hops, strict=True):
            gates: FactorGates = self.gates[str(item_layer.shape[1])]  # type: ignore[assignment]
            items = gates.choose((user_layer, item_layer), ids, progress)  # [B]
            first = items if first is None else first
            e_u = user_layer.index_select(0, inputs.users)  # [B, d_l]
            e_i, e_j = item_layer.index_select(0, torch.cat([inputs.positives, items])).chunk(2)
            pos_r = gates.relevant_positive(e_u, e_i)
            neg_r = gates.relevant_negative(pos_r, e_j)
            users.append(e_u)
            chosen.append(e_j)
            parts.append((pos_r, e_i - pos_r, neg_r, e_j - neg_r))
        pos_r, pos_ir, neg_r, neg_ir = (pool_hops(part, propagated.pooling) for part in zip(*parts, strict=True))
        loss = disentangling_loss(pool_hops(users, propagated.pooling), (pos_r, pos_ir), (neg_r, neg_ir))
        assert first is not None  # noqa: S101 - every propagation has a layer
        return Negatives(first, pool_hops(chosen, propagated.pooling), settings.dens_gamma * loss)


SAMPLER = NegativeSampler(DisentangledSelector, reads_hops=True)
