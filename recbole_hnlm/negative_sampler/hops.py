"""What one propagation of a backbone yields: output embeddings and, on request, the layers from which they are pooled.

Symbols: U users and I items including the padding id 0, d the embedding size, hops 0..L with sizes d_0..d_L (a backbone that
pools by the mean has d_l = d; one that concatenates has d = d_0 + ... + d_L).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Pooling", "Propagated", "pool_hops"]

Pooling = Literal["mean", "concat"]


def pool_hops(hops: Sequence[torch.Tensor], pooling: Pooling) -> torch.Tensor:
    """Pool layers ``[n, d_l]`` into ``[n, d]``: their mean, or their concatenation."""
    if pooling == "concat":
        return torch.cat(list(hops), dim=1)
    total = hops[0]
    for hop in hops[1:]:
        total = total + hop
    return total / len(hops)


@dataclass(frozen=True)
class Propagated:
    """The tensors of one training step's propagation, all with their gradient.

    Attributes:
        user_all: outputs of users, float ``[U, d]``.
        item_all: outputs of items, float ``[I, d]``.
        user_hops: layers whose pooling is ``user_all``, float ``[U, d_l]`` each; one layer, the output itself, where a
            backbone has no others or nobody asked.
        item_hops: likewise for items.
        pooling: how the layers were pooled.
        views: what else the backbone's own terms of the loss need of the same pass.
    """

    user_all: torch.Tensor
    item_all: torch.Tensor
    user_hops: tuple[torch.Tensor, ...]
    item_hops: tuple[torch.Tensor, ...]
    pooling: Pooling = "mean"
    views: Any = None

    @classmethod
    def of_outputs(cls, user_all: torch.Tensor, item_all: torch.Tensor) -> Propagated:
        """Wrap outputs alone: they are their own only layer."""
        return cls(user_all, item_all, (user_all,), (item_all,))

    @classmethod
    def of_hops(
        cls, user_hops: tuple[torch.Tensor, ...], item_hops: tuple[torch.Tensor, ...], pooling: Pooling, views: Any = None
    ) -> Propagated:
        """Pool layers into outputs."""
        return cls(pool_hops(user_hops, pooling), pool_hops(item_hops, pooling), user_hops, item_hops, pooling, views)
