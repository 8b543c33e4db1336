"""KARLightGCN: LightGCN whose embeddings are augmented by adapted profile vectors (KAR, RecSys 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.model.expert_adaptor import HybridExpertAdaptor
from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.text_rival import TextRivalMixin, count_of, number_of, own_randomness
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["KARLightGCN"]


class KARLightGCN(TextRivalMixin, LightGraphBackbone):
    """LightGCN over ``e_x(0) = embedding_x + kar_weight * r_x``, r from :mod:`recbole_hnlm.model.expert_adaptor`.

    Adaptor and embeddings learn from the ranking loss alone; a node without a profile has r = 0. Departure: KAR hands r to a
    model of click rates as further input fields; LightGCN has none, so r joins what is propagated, and texts reach the
    neighbours too. L2 is on the embedding tables alone. With ``kar_weight`` 0 and uniform negatives the loss is LightGCN's.
    """

    needs = SemanticNeeds(texts=True, ranks_with_texts=True)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build LightGCN and the adaptor.

        Raises:
            ConfigError: a key is out of range.
        """
        super().__init__(config, dataset)
        self.kar_weight = number_of(config, "kar_weight", 0)
        shared, dedicated = count_of(config, "kar_shared_experts", 0), count_of(config, "kar_dedicated_experts", 0)
        if shared + dedicated == 0:
            raise ConfigError("kar_shared_experts and kar_dedicated_experts are both 0, expected at least 1 expert")
        hidden = count_of(config, "kar_hidden_size", 1)
        with own_randomness(config):
            self.adaptor = HybridExpertAdaptor(self.texts.dim, hidden, int(self.latent_dim), shared, dedicated)

    def input_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the augmented tables."""
        users, items = self.ego_embeddings()
        if self.kar_weight == 0:
            return users, items
        texts = self.texts
        return (
            self._augmented(users, texts.user_vectors, texts.user_mask, "user"),
            self._augmented(items, texts.item_vectors, texts.item_mask, "item"),
        )

    def _augmented(self, table: torch.Tensor, vectors: torch.Tensor, mask: torch.Tensor, side: str) -> torch.Tensor:
        known = mask.nonzero().squeeze(1)
        return table.index_add(0, known, self.kar_weight * self.adaptor(vectors[known].float(), side))
