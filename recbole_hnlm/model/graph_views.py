"""Random views of the training graph: SGL's three ways to drop parts of it.

Source: Wu et al., "Self-supervised Graph Learning for Recommendation", SIGIR 2021, section 3.1. The number of
parts dropped is fixed, as in RecBole, rather than decided for each part. Draws come from torch's global generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_hnlm.model.propagation import SymmetricAdjacency, normalized_adjacency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["VIEW_TYPES", "draw_view", "kept_interactions"]

VIEW_TYPES = ("ED", "ND", "RW")


def kept_interactions(
    kind: str, users: NDArray[np.int64], items: NDArray[np.int64], sizes: tuple[int, int], drop_ratio: float
) -> NDArray[np.bool_]:
    """Say which interactions a view keeps, bool ``[P]``.

    Args:
        kind: ED and RW drop ``ceil(drop_ratio * P)`` interactions; ND drops ``floor(drop_ratio * n)`` of the users and of the
            items, with all their interactions.
        users: internal ids, ``[P]``.
        items: internal ids, ``[P]``.
        sizes: (U, I).
        drop_ratio: in [0, 1).
    """
    if kind == "ND":
        lost = [torch.zeros(size, dtype=torch.bool) for size in sizes]
        for side, size in zip(lost, sizes, strict=True):
            side[torch.randperm(size)[: int(size * drop_ratio)]] = True
        user_lost, item_lost = (side.numpy() for side in lost)
        return ~(user_lost[users] | item_lost[items])
    kept = torch.zeros(len(users), dtype=torch.bool)
    kept[torch.randperm(len(users))[: int(len(users) * (1 - drop_ratio))]] = True
    return kept.numpy()


def draw_view(
    kind: str, users: NDArray[np.int64], items: NDArray[np.int64], sizes: tuple[int, int], drop_ratio: float
) -> SymmetricAdjacency:
    """Draw an adjacency, normalised by the degrees that are left; arguments as in :func:`kept_interactions`.

    Departure from RecBole: an interaction that stands twice in the data counts once.
    """
    kept = kept_interactions(kind, users, items, sizes, drop_ratio)
    return normalized_adjacency(users[kept], items[kept], *sizes)
