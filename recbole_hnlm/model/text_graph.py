"""What models share that propagate text vectors, or what they make of them, over the graph, without embeddings of ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F  # noqa: N812
from recbole.utils import InputType

from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.backbone import PairwiseBackbone
from recbole_hnlm.model.propagation import normalized_adjacency, propagate_mean
from recbole_hnlm.model.text_rival import count_of

if TYPE_CHECKING:
    import torch

    from recbole_hnlm.model.propagation import SymmetricAdjacency

__all__ = ["TextGraph", "propagated_texts"]


def propagated_texts(
    adjacency: SymmetricAdjacency, users: torch.Tensor, items: torch.Tensor, n_layers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Propagate text vectors over L layers, average the layers, and scale rows to length 1: ``[U, T]`` and ``[I, T]``.

    Formula: ``1/(L+1) * sum_{l=0..L} (D^-1/2 A D^-1/2)^l X``, row by row divided by its length. Inner products of the rows are
    TextGCN's scores. Source: TextGCN, arXiv 2510.12461.

    Args:
        adjacency: of U users and I items.
        users: the users' vectors x_u, float32 ``[U, T]``.
        items: the items' text vectors x_i, float32 ``[I, T]``; 0 where there is no text.
        n_layers: L >= 0; with 0 the score is the cosine of the texts themselves.
    """
    user_all, item_all = propagate_mean(adjacency, users, items, n_layers)
    return F.normalize(user_all, dim=1), F.normalize(item_all, dim=1)


class TextGraph(PairwiseBackbone):
    """A backbone that holds the graph of the training interactions and no table of embeddings.

    Attributes:
        n_layers: L, the key of this name.
        adjacency: the normalised graph.
    """

    input_type = InputType.PAIRWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the graph.

        Raises:
            ConfigError: ``n_layers`` is out of range.
        """
        super().__init__(config, dataset)
        self.n_layers = count_of(config, "n_layers", 0)
        training = TrainingInteractions.from_dataset(dataset)
        graph = normalized_adjacency(training.users, training.items, self.n_users, self.n_items)
        self.adjacency = graph.to(self.device)
