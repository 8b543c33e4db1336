"""The projector f: R^H -> R^d from the space of text to the space of collaborative embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Projector", "ProjectorBank"]


class Projector(nn.Sequential):
    """Two linear layers with a GELU between them; weights Xavier-uniform, biases zero."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        """Build ``f`` from H = ``input_size`` over ``hidden_size`` to d = ``output_size``."""
        layers = (nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, output_size))
        super().__init__(layers[0], nn.GELU(), layers[1])
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class ProjectorBank(nn.ModuleDict):
    """One projector per input dimension.

    Vectors of equal dimension share their projector, so that the alignment of real text teaches the map that z_ui goes through.
    The dimension is part of the parameters' names: a checkpoint alone says which projectors a model had, and a model that is
    built without any vectors at hand (for evaluation) grows them when the checkpoint is loaded.
    """

    def __init__(self, hidden_size: int, output_size: int, seed: int) -> None:
        """Start empty; ``seed`` fixes the weights of the projectors that :meth:`grow` adds."""
        super().__init__()
        self._hidden_size, self._output_size, self._seed = hidden_size, output_size, seed

    def grow(self, input_sizes: Iterable[int]) -> None:
        """Add the projectors of these input dimensions that are still missing, leaving the global random state as it was."""
        for size in sorted(set(input_sizes)):
            if str(size) not in self:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self._seed)
                    self[str(size)] = Projector(size, self._hidden_size, self._output_size)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map vectors ``[M, H]`` to ``[M, d]`` by the projector of their dimension."""
        return self[str(vectors.shape[1])](vectors)
