r"""AlphaRec: text vectors, mapped by an MLP and propagated, in the place of embeddings of users and items.

Reference:
    "Language Representations Can be What Recommenders Need: Findings and Potentials" (AlphaRec). ICLR 2025 (arXiv 2407.05441).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.model.propagation import propagate_hops, propagate_mean
from recbole_hnlm.model.text_graph import TextGraph
from recbole_hnlm.model.text_rival import TextRivalMixin, count_of, own_randomness

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["AlphaRec", "text_mlp"]

_SLOPE = 0.01


def text_mlp(input_size: int, hidden_size: int, output_size: int) -> nn.Sequential:
    """Return Linear, LeakyReLU, Linear, with biases and torch's initial weights."""
    return nn.Sequential(nn.Linear(input_size, hidden_size), nn.LeakyReLU(_SLOPE), nn.Linear(hidden_size, output_size))


class AlphaRec(TextRivalMixin, TextGraph):
    """LightGCN's propagation of ``e_x(0) = MLP(x)``, one MLP for users and items, under the loss of ``rank_loss``.

    x_i is the text vector of an item, x_u the mean over a user's training items. Only the MLP is learned; a node without text
    starts from 0. Its keys ask for the sampled softmax of cosines, whose negatives leave out the user's training items, and
    for no negative of ``negative_sampler`` (``loss_hard_weight: 0``).

    Departures: negatives are shared by the batch rather than drawn for each pair; an epoch passes over the interactions, where
    the authors draw a user first and then one of the user's items; texts and encoder are those of the run; with
    ``alignment_source: profile`` x_u is the vector of the user's profile.
    """

    needs = SemanticNeeds(texts=True, ranks_with_texts=True)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the MLP.

        Raises:
            ConfigError: a key is out of range.
            ArtifactError: the data carries no text vectors.
        """
        # The sampler is built by the parents and asks for the sizes of the layers.
        self.latent_dim = count_of(config, "embedding_size", 1)
        super().__init__(config, dataset)
        # There are no embeddings of ids to regularise.
        self.loss_part_names = tuple(name for name in self.loss_part_names if name != "reg")
        hidden = count_of(config, "text_hidden_size", 1)
        with own_randomness(config):
            self.build_mlps(self.texts.dim, hidden)

    def build_mlps(self, input_size: int, hidden_size: int) -> None:
        """Make what is learned."""
        self.mlp = text_mlp(input_size, hidden_size, self.latent_dim)

    @property
    def hop_sizes(self) -> tuple[int, ...]:
        """Return d for each of the layers 0 to L."""
        return (self.latent_dim,) * (self.n_layers + 1)

    def input_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mapped texts of users ``[U, d]`` and items ``[I, d]``, 0 where there is no text."""
        texts = self.texts
        users = self.mlp(texts.user_vectors.float()) * texts.user_mask[:, None]
        items = self.mlp(texts.item_vectors.float()) * texts.item_mask[:, None]
        return users, items

    def ego_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is propagated; there are no tables."""
        return self.input_embeddings()

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs of users ``[U, d]`` and items ``[I, d]``."""
        return propagate_mean(self.adjacency, *self.input_embeddings(), self.n_layers)

    def propagate_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return layers 0 to L of users, each ``[U, d]``, and of items, each ``[I, d]``."""
        return propagate_hops(self.adjacency, *self.input_embeddings(), self.n_layers)

    def regularization(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
    ) -> torch.Tensor:
        """Return 0, which is no part of the loss; ``weight_decay`` regularises the MLP."""
        return propagated.user_all.new_zeros(())
