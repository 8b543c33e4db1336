r"""A metric of items' texts, learned from which items the same users have in training.

Symbols: I items including the padding id 0, T the dimension of the text vectors t_i (of unit length), B pairs of a batch,
P the interactions that take part.

Formula: ``x_i = normalize(W t_i + b)``, W from the identity and b from zero; for pairs (i_a, k_a) of two items that one user
has in training

.. math:: -\frac{1}{B} \sum_a \ln \frac{\exp(x_{i_a} \cdot x_{k_a} / t)}{\sum_{c \in C_a} \exp(x_{i_a} \cdot x_{k_c} / t)}

with C_a the batch's pairs but those others whose k_c is i_a or k_a. This is InfoNCE (van den Oord et al., arXiv 1807.03748)
with the negatives of the batch; that two items of one user are a positive pair is item2vec's idea (Barkan and Koenigstein, MLSP
2016), and all that the metric knows of users.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    import scipy.sparse as sp
    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["TextMetric", "draw_pairs", "learn_metric", "mapped", "pair_loss"]

_logger = logging.getLogger(__name__)

EPOCHS, BATCH, LEARNING_RATE, TEMPERATURE = 6, 2048, 1e-3, 0.1
# Of one encoder on two machines, mean unit vectors differ by rounding; those of two encoders, or kinds of texts, by much more.
_SAME_TEXTS = 0.999


@dataclass(frozen=True)
class TextMetric:
    """What is learned, and of which texts.

    Attributes:
        weight: W, float32 ``[T, T]``.
        bias: b, float32 ``[T]``.
        centre: mean of the unit vectors that it was learned of, float32 ``[T]``.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    centre: torch.Tensor

    def equals(self, other: TextMetric) -> bool:
        """Whether both map alike."""
        return torch.equal(self.weight.cpu(), other.weight.cpu()) and torch.equal(self.bias.cpu(), other.bias.cpu())

    def fits(self, units: torch.Tensor, known: torch.Tensor) -> bool:
        """Whether unit vectors ``[I, T]``, of which ``known`` says which mean something, are of the texts it was learned of."""
        own = _centre(units, known)
        return own.shape == self.centre.shape and bool(F.cosine_similarity(own, self.centre.to(own), dim=0) > _SAME_TEXTS)


def mapped(units: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return ``normalize(W t + b)`` of rows t ``[n, T]``."""
    return F.normalize(F.linear(units, weight, bias), dim=1)


def draw_pairs(history: sp.csr_matrix, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair every interaction of a user with two items or more with another item of the same user, drawn uniformly.

    Args:
        history: one where the user has the item, each once, ``[U, I]``.
        rng: draws.

    Returns:
        Items i and k != i, int64 ``[P]`` each, in the order of the matrix.
    """
    counts = np.diff(history.indptr)
    size = np.repeat(counts, counts)
    start = np.repeat(history.indptr[:-1], counts)
    rows = np.flatnonzero(size > 1)
    size, start = size[rows], start[rows]
    others = start + (rows - start + rng.integers(1, size)) % size
    return history.indices[rows].astype(np.int64), history.indices[others].astype(np.int64)


def pair_loss(
    first: torch.Tensor, second: torch.Tensor, first_items: torch.Tensor, second_items: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the mean of the formula above over a batch, a scalar.

    Args:
        first: x of the items i, ``[B, T]``.
        second: x of the items k, ``[B, T]``.
        first_items: i, int64 ``[B]``.
        second_items: k, int64 ``[B]``.
        temperature: t > 0.
    """
    scores = first @ second.t() / temperature  # [B, B]
    same = (second_items == first_items[:, None]) | (second_items == second_items[:, None])
    same.fill_diagonal_(False)
    return F.cross_entropy(scores.masked_fill(same, -torch.inf), torch.arange(len(first), device=first.device))


def learn_metric(
    units: torch.Tensor, known: torch.Tensor, training: TrainingInteractions, seed: int, epochs: int = EPOCHS
) -> TextMetric:
    """Learn W and b by Adam; the global random state is not touched.

    Args:
        units: items' text vectors of unit length, float32 ``[I, T]``.
        known: which items have one, bool ``[I]``.
        training: the training interactions, all that it learns from.
        seed: of pairs and batches.
        epochs: passes over the interactions.

    Raises:
        ConfigError: no user has two training items with text.
    """
    kept = known.cpu().numpy()[training.items]
    history = pair_matrix(training.users[kept], training.items[kept], (training.n_users, training.n_items))
    history.sort_indices()
    if not (np.diff(history.indptr) > 1).any():
        raise ConfigError(
            "text_metric learned needs users with two training items that have text, but there are none; use --text_metric=none"
        )
    dim = units.shape[1]
    weight = torch.eye(dim, device=units.device).requires_grad_()
    bias = torch.zeros(dim, device=units.device).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    rng = np.random.default_rng(seed)
    begun, losses = time.perf_counter(), []
    for _ in range(epochs):
        total = 0.0
        items = torch.from_numpy(np.stack(draw_pairs(history, rng)))  # [2, P]
        order = torch.from_numpy(rng.permutation(items.shape[1]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            first, second = items[:, places].to(units.device)
            with torch.enable_grad():
                loss = pair_loss(
                    mapped(units[first], weight, bias), mapped(units[second], weight, bias), first, second, TEMPERATURE
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(places) / len(order)
        losses.append(total)
    _logger.info(
        "text metric learned of %s pairs of training items a pass: loss %s (%.1f s)",
        f"{len(order):,}",
        ", ".join(f"{loss:.4f}" for loss in losses),
        time.perf_counter() - begun,
    )
    return TextMetric(weight.detach(), bias.detach(), _centre(units, known))


def _centre(units: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return units[known].mean(dim=0)
