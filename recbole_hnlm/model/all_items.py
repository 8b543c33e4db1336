"""Scores of all items from a model that scores nothing but pairs (NeuMF, ConvNCF)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole.data.interaction import Interaction

__all__ = ["predict_all_items"]


def predict_all_items(
    predict: Callable[[Interaction], torch.Tensor], asked: Interaction, items: Interaction, at_once: int
) -> torch.Tensor:
    """Score every pair of a user and an item, as RecBole's evaluation does; float ``[n, I]``.

    Args:
        predict: scores pairs.
        asked: n users, with whatever the model reads of them.
        items: all I items, likewise.
        at_once: pairs that are scored together.
    """
    pairs = asked.repeat_interleave(len(items))
    pairs.update(items.repeat(len(asked)))
    parts = [predict(pairs[start : start + at_once]).view(-1) for start in range(0, len(pairs), at_once)]
    return torch.cat(parts).view(len(asked), -1)
