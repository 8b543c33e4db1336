r"""DirectAU: alignment and uniformity on the sphere in the place of negatives.

Reference:
    Chenyang Wang et al. "Towards Representation Alignment and Uniformity in Collaborative Filtering." in KDD 2022.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.text_rival import number_of
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction

__all__ = ["DirectAU", "alignment", "uniformity"]

_ENCODERS = ("LightGCN", "MF")


def alignment(users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return ``mean ||x_u - x_i||^2`` of vectors of unit length ``[B, d]`` each, a scalar. Source: DirectAU, formula 2."""
    return (users - items).square().sum(dim=1).mean()


def uniformity(vectors: torch.Tensor) -> torch.Tensor:
    """Return ``log mean exp(-2 ||x - y||^2)`` over all pairs of rows, a scalar; 0, the worst, of a single row.

    Source: DirectAU, formula 3. As in the authors' code, a node that stands twice in the batch is a pair of its own.

    Args:
        vectors: of unit length, ``[B, d]``.
    """
    count = len(vectors)
    if count == 1:
        return vectors.sum() * 0.0
    # ||x - y||^2 = 2 - 2 x.y on the sphere; the matrix holds each pair twice, which leaves the mean as it is.
    exponents = 4.0 * (vectors @ vectors.t() - 1.0)
    exponents = exponents.masked_fill(torch.eye(count, dtype=torch.bool, device=vectors.device), -torch.inf)
    return torch.logsumexp(exponents, dim=(0, 1)) - math.log(count * (count - 1))


class DirectAU(LightGraphBackbone):
    r"""DirectAU on matrix factorisation or LightGCN.

    Formula: ``l_align + gamma * (l_uniform(users) + l_uniform(items)) / 2`` of the batch's pairs, on vectors of unit length.
    Scores are inner products of the vectors as they are, as in the authors' code. No negative is read; the work grows
    with the square of ``train_batch_size``. L2 regularisation is RecBole's key ``weight_decay``.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        """Read the keys.

        Raises:
            ConfigError: ``encoder`` or ``gamma`` is out of range.
        """
        super().__init__(config, dataset)
        encoder = config["encoder"]
        if encoder not in _ENCODERS:
            raise ConfigError(f"encoder is {shown(encoder)}, expected one of {', '.join(_ENCODERS)}")
        if encoder == "MF":
            self.n_layers = 0
        self.gamma = number_of(config, "gamma", 0)
        self.loss_part_names = ("align", "uniform")

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Return both parts of the loss, scalars.

        Args:
            interaction: with ``user_id [B]`` and ``item_id [B]``.
        """
        self._propagated = None
        user_all, item_all = self.propagate()
        users = F.normalize(user_all.index_select(0, interaction[self.USER_ID]), dim=1)
        items = F.normalize(item_all.index_select(0, interaction[self.ITEM_ID]), dim=1)
        spread = 0.5 * (uniformity(users) + uniformity(items))
        return alignment(users, items), self.gamma * spread
