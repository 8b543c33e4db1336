r"""TextGCN: LightGCN's propagation of text vectors, without any training.

Reference:
    TextGCN and TextGCN-MLP, arXiv 2510.12461.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.model.text_graph import TextGraph, propagated_texts
from recbole_hnlm.model.untrained import Untrained, text_tables_of

if TYPE_CHECKING:
    import torch

__all__ = ["TextGCN"]


class TextGCN(Untrained, TextGraph):
    """Scores by the cosine of propagated text vectors (:func:`recbole_hnlm.model.text_graph.propagated_texts`).

    x_i is the text vector of an item, x_u the mean over a user's training items. The embedding space is the text encoder's.
    Nothing is kept in a checkpoint: the scores follow from the texts and the training interactions.

    Departures: the authors encode titles alone, with a large encoder; here texts and encoder are those of the run, and with
    ``alignment_source: profile`` x_u is the vector of the user's profile.
    """

    needs = SemanticNeeds(texts=True, ranks_with_texts=True)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Take the texts.

        Raises:
            ConfigError: ``n_layers`` is out of range.
            ArtifactError: the data carries no vectors of items' texts.
        """
        super().__init__(config, dataset)
        self.texts = text_tables_of(dataset, settings_of(config), self.device, type(self).__name__)

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors of users ``[U, T]`` and items ``[I, T]``."""
        tables = self.texts
        return propagated_texts(self.adjacency, tables.user_vectors.float(), tables.item_vectors.float(), self.n_layers)
