r"""SRNS: hard candidates whose hardness also varies over epochs, since false negatives score high and steadily.

Every user has a memory of ``num_candidates`` items. The negative is ``argmax_j P_pos(j | u, i) + alpha_t std(P_pos(j | u, i))``
over the memory, with ``P_pos(j | u, i) = sigmoid(s_uj - s_ui)``, the standard deviation over the last 5 epochs, and ``alpha_t``
rising from 0 to ``srns_alpha`` over ``srns_warmup_epochs``. Once a step, each user's memory is drawn anew, without replacement,
from itself and as many fresh candidates, with probabilities ``softmax(s_uj / temperature)``.
Source: Ding, Quan, Yao, Li and Jin, "Simplify and Robustify Negative Sampling for Implicit Collaborative Filtering", NeurIPS
2020; choice, deviation and renewal were read from the public repository dingjingtao/SRNS.

Departures: for the deviation that repository records scores of a fixed pool of candidates per user; here the embeddings of the
last 5 epochs are kept, (U + I) d numbers each, from which the score of any pair in those epochs follows exactly, and no pool
limits the choice. A memory that was never filled takes the step's candidates. Drawing without replacement uses the Gumbel
top-K trick, which has the same distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, Selector
from recbole_hnlm.negative_sampler.dns import candidate_scores
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs

__all__ = ["SAMPLER", "renew_memory", "variance_choice"]

_EPOCHS = 5


def variance_choice(likelihood: torch.Tensor, history: torch.Tensor, weight: float) -> torch.Tensor:
    """Return ``argmax_j P_j + weight * std_t(P_jt)``, the first on a tie, int64 ``[B]``.

    Args:
        likelihood: P_pos now, ``[B, K]``.
        history: P_pos in T epochs, ``[T, B, K]``; the deviation divides by T. T = 0 counts as no deviation.
        weight: alpha_t.
    """
    if len(history) == 0:
        return likelihood.argmax(dim=1)
    return (likelihood + weight * history.std(dim=0, correction=0)).argmax(dim=1)


def renew_memory(items: torch.Tensor, logits: torch.Tensor, noise: torch.Tensor, size: int) -> torch.Tensor:
    """Draw ``size`` of each row's items without replacement, in proportion to ``exp(logit)``.

    Source: Gumbel top-K, Kool, van Hoof and Welling, "Stochastic Beams and Where to Find Them", ICML 2019, section 2.3.

    Args:
        items: int64 ``[n, m]``; an item that stands twice in a row counts once, as long as enough others are left.
        logits: ``[n, m]``.
        noise: independent standard Gumbel numbers, ``[n, m]``.
        size: at most m.

    Returns:
        int64 ``[n, size]``.
    """
    ordered, order = items.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    keys = (logits + noise).gather(1, order).masked_fill(repeated, -torch.inf)
    return ordered.gather(1, keys.topk(size, dim=1).indices)


class MemorySelector(Selector):
    """Holds every user's memory and the embeddings of the last epochs."""

    def __init__(self, context: SamplerContext) -> None:
        """Start with empty memories; 0, the padding id, marks an empty place."""
        super().__init__()
        # In lists, so that the module neither saves nor broadcasts them: checkpoints take them from `memory`.
        shape = (context.n_users, context.settings.num_candidates)
        self._pool = [torch.zeros(shape, dtype=torch.int64, device=context.device)]
        self._history: list[tuple[torch.Tensor, torch.Tensor]] = []

    def start_epoch(self, epoch: int, propagate: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Keep the embeddings as they are before the epoch."""
        super().start_epoch(epoch, propagate)
        user_all, item_all = propagate()
        self._history = [*self._history[1 - _EPOCHS :], (user_all.detach().clone(), item_all.detach().clone())]

    def memory(self) -> dict[str, torch.Tensor]:
        """Return the memories and the embeddings of past epochs."""
        kept = {"pool": self._pool[0]}
        if self._history:
            kept["users"], kept["items"] = (torch.stack(tables) for tables in zip(*self._history, strict=True))
        return kept

    def recall(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Restore what :meth:`memory` returned.

        Raises:
            ArtifactError: it is of other sizes.
        """
        device, size, found = self._pool[0].device, tuple(self._pool[0].shape), tuple(memory["pool"].shape)
        if found != size:
            raise ArtifactError(
                f"the checkpoint's memory of srns has shape {found}, expected {size} (users, num_candidates): use the keys and "
                f"the data that it was trained with"
            )
        self._pool = [memory["pool"].to(device)]
        past = [memory[name].to(device).unbind() for name in ("users", "items") if name in memory]
        self._history = list(zip(*past, strict=True)) if past else []

    def _likelihood(
        self, inputs: SelectionInputs, items: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Return ``sigmoid(s_uj - s_ui)`` under these embeddings, ``[B, K]``."""
        both = torch.cat([inputs.positives.unsqueeze(1), items], dim=1)  # [B, 1 + K]
        scores = candidate_scores(inputs.users, both, *tables)
        return torch.sigmoid(scores[:, 1:] - scores[:, :1])

    def select(self, inputs: SelectionInputs) -> Negatives:
        """Choose from the users' memories, then renew them."""
        pool, settings = self._pool[0], inputs.settings
        owners, first = _first_rows(inputs.users)
        fresh = inputs.candidates[first]  # [n, K]
        kept = torch.where(pool[owners] == 0, fresh, pool[owners])  # [n, K]
        pool[owners] = kept
        items, tables = pool[inputs.users], (inputs.user_all.detach(), inputs.item_all.detach())
        past = [self._likelihood(inputs, items, then) for then in self._history]
        likelihood = self._likelihood(inputs, items, tables)
        weight = settings.srns_alpha * min(1.0, self.epoch / settings.srns_warmup_epochs)
        place = variance_choice(likelihood, torch.stack(past) if past else likelihood.new_empty(0), weight)
        union = torch.cat([kept, fresh], dim=1)  # [n, 2K]
        logits = candidate_scores(owners, union, *tables) / settings.srns_temperature
        noise = -torch.empty_like(logits).exponential_().log()
        pool[owners] = renew_memory(union, logits, noise, pool.shape[1])
        return Negatives(items=items.gather(1, place.unsqueeze(1)).squeeze(1))


def _first_rows(users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct users, int64 ``[n]``, and the first row of each, int64 ``[n]``."""
    owners, inverse = torch.unique(users, return_inverse=True)
    rows = torch.arange(len(users), device=users.device)
    first = torch.full_like(owners, len(users)).scatter_reduce_(0, inverse, rows, reduce="amin")
    return owners, first


SAMPLER = NegativeSampler(MemorySelector, least_candidates=2)
