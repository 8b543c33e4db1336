r"""TextGCNMLP: propagated text vectors as fixed inputs of two MLPs.

Reference:
    TextGCN and TextGCN-MLP, arXiv 2510.12461.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from recbole_hnlm.model.alpharec import AlphaRec, text_mlp
from recbole_hnlm.model.text_graph import propagated_texts

if TYPE_CHECKING:
    import torch

__all__ = ["TextGCNMLP"]


class TextGCNMLP(AlphaRec):
    """``e_u = MLP_u(x_u)`` and ``e_i = MLP_i(x_i)`` of the vectors that TextGCN scores with, under the loss of ``rank_loss``.

    The graph is in the inputs alone, so that a step propagates nothing. Departures: those of :class:`AlphaRec`; the authors
    draw P positives of each user of a batch and average their losses, here each interaction is a row of its own, so that
    a user with many of them has more of the loss.
    """

    def build_mlps(self, input_size: int, hidden_size: int) -> None:
        """Make what is learned, an MLP of each side."""
        self.user_mlp = text_mlp(input_size, hidden_size, self.latent_dim)
        self.item_mlp = text_mlp(input_size, hidden_size, self.latent_dim)

    @cached_property
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The propagated texts of users ``[U, T]`` and items ``[I, T]``, of length 1; made once."""
        texts = self.texts
        return propagated_texts(self.adjacency, texts.user_vectors.float(), texts.item_vectors.float(), self.n_layers)

    @property
    def hop_sizes(self) -> tuple[int, ...]:
        """Return d: the outputs are the only layer."""
        return (self.latent_dim,)

    def input_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs of users ``[U, d]`` and items ``[I, d]``."""
        users, items = self.inputs
        return self.user_mlp(users), self.item_mlp(items)

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs: nothing is propagated any more."""
        return self.input_embeddings()

    def propagate_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return the outputs as the only layer."""
        users, items = self.input_embeddings()
        return (users,), (items,)
