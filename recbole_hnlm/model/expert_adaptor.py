r"""KAR's hybrid-expert adaptor: from profile vectors to augmented vectors of users and items.

Formula, for a side a (users or items) with profile vector s:
``r = sum_k softmax(G_a s + b_a)_k E_k(s)``, k over the n_s shared experts, the same for both sides, and the n_d dedicated
experts of side a. Every expert is an MLP; gates are linear.

Source: Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024
(arXiv 2306.10933). That one softmax spans shared and dedicated experts, that gates are linear and that experts end in a ReLU
were read from public re-implementations. Departures: an expert here ends in its linear layer, since its output is added to
embeddings of either sign and non-negative additions would push all scores up together; no dropout.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["HybridExpertAdaptor", "mix_experts"]

SIDES = ("user", "item")


def mix_experts(gate_logits: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k softmax(g)_k E_k``, ``[n, d]``.

    Args:
        gate_logits: g, ``[n, K]``.
        outputs: what the experts say, ``[n, K, d]``.
    """
    return torch.einsum("nk,nkd->nd", gate_logits.softmax(dim=1), outputs)


def _expert(input_size: int, hidden_size: int, output_size: int) -> nn.Sequential:
    """Linear, ReLU, Linear; weights Xavier-uniform, biases zero."""
    layers = (nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, output_size))
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


class HybridExpertAdaptor(nn.Module):
    """Shared experts, dedicated experts and a gate for each side."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, shared: int, dedicated: int) -> None:
        """Make the experts.

        Args:
            input_size: T, of profile vectors.
            hidden_size: units of an expert's hidden layer.
            output_size: d, of augmented vectors.
            shared: n_s >= 0.
            dedicated: n_d >= 0 of each side; ``shared + dedicated`` >= 1.
        """
        super().__init__()
        sizes = (input_size, hidden_size, output_size)
        self.shared = nn.ModuleList(_expert(*sizes) for _ in range(shared))
        self.dedicated = nn.ModuleDict({side: nn.ModuleList(_expert(*sizes) for _ in range(dedicated)) for side in SIDES})
        self.gates = nn.ModuleDict({side: nn.Linear(input_size, shared + dedicated) for side in SIDES})

    def forward(self, vectors: torch.Tensor, side: str) -> torch.Tensor:
        """Return augmented vectors ``[n, d]`` of profile vectors ``[n, T]`` of one side, ``user`` or ``item``."""
        experts = (*self.shared, *self.dedicated[side])  # type: ignore[misc]
        return mix_experts(self.gates[side](vectors), torch.stack([expert(vectors) for expert in experts], dim=1))
