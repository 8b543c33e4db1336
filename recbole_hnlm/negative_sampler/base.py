"""What a negative sampler receives and what it returns.

Symbols: B positives in the batch, K candidates of each, U users and I items including the padding id 0, d the embedding size,
hops 0..L of widths d_l.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.semantics import TextTables
    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["NegativeSampler", "Negatives", "SamplerContext", "SelectionInputs", "Selector", "stateless"]


@dataclass(frozen=True)
class SelectionInputs:
    """The step's data from which a negative is chosen; embeddings are those that the step's one propagation produced.

    Attributes:
        users: internal user ids, int64 ``[B]``.
        positives: internal item ids, int64 ``[B]``.
        candidates: items that the user did not interact with in training, int64 ``[B, K]``.
        propagated: outputs and, for samplers that set ``reads_hops``, the layers behind them, with their gradient.
        settings: the run's keys.
    """

    users: torch.Tensor
    positives: torch.Tensor
    candidates: torch.Tensor
    propagated: Propagated
    settings: HNLMSettings

    @property
    def user_all(self) -> torch.Tensor:
        """Users' embeddings, float ``[U, d]``."""
        return self.propagated.user_all

    @property
    def item_all(self) -> torch.Tensor:
        """Items' embeddings, float ``[I, d]``."""
        return self.propagated.item_all


@dataclass(frozen=True)
class Negatives:
    """The chosen negatives.

    Attributes:
        items: internal item ids, int64 ``[B]``; their ego embeddings are regularised.
        embeddings: e_j, float ``[B, d]``, for samplers that synthesise one; None takes the items' own rows.
        loss: a weighted term of the loss, a scalar, from samplers that set :attr:`Selector.loss_name`.
        counts: how many of the B negatives are of some kind, by the kind's name, for the epoch's log line.
    """

    items: torch.Tensor
    embeddings: torch.Tensor | None = None
    loss: torch.Tensor | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplerContext:
    """What a selector may need to be built: sizes, the training split, text, and the run's keys.

    Attributes:
        settings: the run's keys.
        n_users: U.
        n_items: I.
        hop_sizes: d_0 .. d_L.
        training: returns the training interactions.
        texts: text vectors, for samplers registered with ``reads_text``; None where the dataset carries none.
        device: where tensors live.
        seed: of the selector's own weights.
    """

    settings: HNLMSettings
    n_users: int
    n_items: int
    hop_sizes: tuple[int, ...]
    training: Callable[[], TrainingInteractions]
    texts: TextTables | None
    device: torch.device
    seed: int


class Selector(nn.Module):
    """Chooses negatives; one belongs to each model, so that it may hold weights and remember earlier epochs.

    Randomness comes from torch's global generator, which checkpoints keep.

    Attributes:
        loss_name: name of the term of the loss that :meth:`select` returns; None where it returns none.
        count_names: keys of :attr:`Negatives.counts`.
        epoch: the current epoch, from 0.
    """

    loss_name: str | None = None
    count_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        """Start before the first epoch."""
        super().__init__()
        self.epoch = 0

    def select(self, inputs: SelectionInputs) -> Negatives:
        """Choose a negative for each of B positives."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, propagate: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Note that an epoch begins.

        Args:
            epoch: counted from 0.
            propagate: returns the embeddings of all users ``[U, d]`` and items ``[I, d]`` as they now are, without gradient.
        """
        self.epoch = epoch

    def memory(self) -> dict[str, torch.Tensor]:
        """Return what is remembered of earlier epochs, for the checkpoint."""
        return {}

    def recall(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Restore what :meth:`memory` returned."""


class _Stateless(Selector):
    def __init__(self, choose: Callable[[SelectionInputs], Negatives]) -> None:
        super().__init__()
        self._choose = choose

    def select(self, inputs: SelectionInputs) -> Negatives:
        return self._choose(inputs)


def stateless(choose: Callable[[SelectionInputs], Negatives]) -> Callable[[SamplerContext], Selector]:
    """Make the ``build`` of a sampler that is a function of the step alone."""
    return lambda _context: _Stateless(choose)


@dataclass(frozen=True)
class NegativeSampler:
    """A way to choose negatives, and what settings, loader and model must know about it.

    Attributes:
        build: makes the selector of a model.
        distribution: from which candidates are drawn.
        needs_candidates: whether ``num_candidates`` are drawn per positive rather than one.
        least_candidates: smallest ``num_candidates`` with which there is a choice.
        reads_text: whether it reads text vectors of users and items, so that these must be built.
        reads_hops: whether it reads the layers behind the outputs.
    """

    build: Callable[[SamplerContext], Selector]
    distribution: Literal["uniform", "popularity"] = "uniform"
    needs_candidates: bool = True
    least_candidates: int = 1
    reads_text: bool = False
    reads_hops: bool = False
