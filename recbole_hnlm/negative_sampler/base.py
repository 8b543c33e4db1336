"""What a negative sampler is given and what it gives back.

Symbols: B positives in the batch, K candidates of each, U users and I items including the padding id 0, d the embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from recbole_hnlm.settings import HNLMSettings

__all__ = ["NegativeSampler", "Negatives", "SelectionInputs"]


@dataclass(frozen=True)
class SelectionInputs:
    """The step's data from which a negative is chosen; embeddings are those that the step's one encoding produced.

    Attributes:
        users: internal user ids, int64 ``[B]``.
        positives: internal item ids, int64 ``[B]``.
        candidates: items that the user did not interact with in training, int64 ``[B, K]``.
        user_all: users' embeddings, float ``[U, d]``, with their gradient.
        item_all: items' embeddings, float ``[I, d]``, with their gradient.
        settings: the run's keys.
    """

    users: torch.Tensor
    positives: torch.Tensor
    candidates: torch.Tensor
    user_all: torch.Tensor
    item_all: torch.Tensor
    settings: HNLMSettings


@dataclass(frozen=True)
class Negatives:
    """The chosen negatives.

    Attributes:
        items: internal item ids, int64 ``[B]``; their ego embeddings are regularised.
        embeddings: e_j, float ``[B, d]``, for samplers that synthesise one; None takes the items' own rows.
    """

    items: torch.Tensor
    embeddings: torch.Tensor | None = None


@dataclass(frozen=True)
class NegativeSampler:
    """A way to choose negatives.

    Attributes:
        distribution: from which candidates are drawn.
        needs_candidates: whether ``num_candidates`` are drawn per positive rather than one.
        select: chooses among the candidates; must not keep state and must be deterministic.
    """

    distribution: Literal["uniform", "popularity"]
    needs_candidates: bool
    select: Callable[[SelectionInputs], Negatives]
