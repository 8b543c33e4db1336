"""How hard the negatives of training are, epoch by epoch: a record that training never reads.

Symbols: B triples of a batch with scores s_i of the positive and s_j of the negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FELT", "HardnessRecorder", "bpr_gradient", "hinge_gradient"]

FELT = 0.01
"""From this gradient on, of at most 1, a triple counts as one that trains: BPR's gradient never is exactly 0."""

_SERIES = ("difference", "gradient", "gradient_share")


def bpr_gradient(differences: torch.Tensor) -> torch.Tensor:
    """Return ``|d(-log sigmoid(s_i - s_j)) / d(s_j - s_i)| = sigmoid(s_j - s_i)`` of ``s_j - s_i``, ``[B]``."""
    return torch.sigmoid(differences)


def hinge_gradient(differences: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the gradient of ``max(0, s_j - s_i + m)`` by ``s_j - s_i``, ``[B]``: 1 where the margin is violated, else 0."""
    return (differences + margin > 0).float()


class HardnessRecorder:
    """Averages over the triples of each epoch; it stays on the device until the epoch ends.

    Attributes:
        series: by epoch, None for epochs that were not recorded: ``difference``, the mean of ``s_j - s_i``; ``gradient``, the
            mean of the loss's gradient by it, in [0, 1]; ``gradient_share``, the share of triples where that is at least
            :data:`FELT`. The last two are None where the loss is not one of pairs.
    """

    def __init__(self, gradient: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        """Record triples.

        Args:
            gradient: of the loss of pairs, by ``s_j - s_i``; None where a positive meets many negatives at once.
        """
        self._gradient = gradient
        self._sums: torch.Tensor | None = None
        self._seen = 0
        self.series: dict[str, list[float | None]] = {name: [] for name in _SERIES}

    def __call__(self, positive_scores: torch.Tensor, negative_scores: torch.Tensor) -> None:
        """Add a batch of scores, ``[B]`` each."""
        with torch.no_grad():
            differences = negative_scores - positive_scores
            sums = [differences.sum()]
            if self._gradient is not None:
                gradients = self._gradient(differences)
                sums += [gradients.sum(), (gradients >= FELT).sum()]
            row = torch.stack([value.double() for value in sums])
            self._sums = row if self._sums is None else self._sums + row
            self._seen += len(differences)

    def end_epoch(self) -> dict[str, float] | None:
        """Close the epoch and return its means by name; None where no triple was seen."""
        if self._sums is None:
            return None
        means = (self._sums / self._seen).tolist()
        self._sums, self._seen = None, 0
        found = dict(zip(_SERIES, means, strict=False))
        for name in _SERIES:
            self.series[name].append(found.get(name))
        return found

    def record(self) -> dict[str, list[float | None]] | None:
        """Return :attr:`series` for the run's record; None where nothing was seen."""
        return self.series if self.series["difference"] else None

    def recall(self, series: Mapping[str, list[float | None]] | None, epochs: int) -> None:
        """Continue after so many epochs with what their record says; without one they stay unknown."""
        known = series or {}
        self.series = {name: list(known.get(name) or [None] * epochs) for name in _SERIES}
