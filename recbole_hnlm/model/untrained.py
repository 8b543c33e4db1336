"""What models share that are computed from the training data in one go, without a loss, as RecBole's EASE and ItemKNN are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType, ModelType

from recbole_hnlm.data.semantics import TextTables, vectors_of
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.semantics import SemanticVectors

__all__ = ["Untrained", "item_texts_of", "text_tables_of"]


class Untrained(GeneralRecommender):
    """A model that RecBole passes through its trainer once, for nothing but a checkpoint and an evaluation.

    RecBole knows such models by their type, and its trainer's optimizer wants a parameter.

    Attributes:
        dummy_param: that parameter, which nothing reads.
    """

    type = ModelType.TRADITIONAL
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build RecBole's part."""
        super().__init__(config, dataset)
        self.dummy_param = torch.nn.Parameter(torch.zeros(1))

    def calculate_loss(self, interaction: Any) -> Any:
        """Return zero, a tensor ``[1]``: there is nothing to learn."""
        return 0.0 * self.dummy_param


def item_texts_of(dataset: Any, model: str) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], SemanticVectors]:
    """Return the vectors ``[I, T]`` of items' texts that a training dataset carries, which items have one, and all it carries.

    Raises:
        ArtifactError: it carries none, or those of no item.
    """
    vectors = vectors_of(dataset)
    if vectors is None or vectors.item_vectors is None or vectors.item_mask is None:
        raise ArtifactError(
            f"{model} needs vectors of items' texts, but the data carries none; run through recbole-hnlm, which builds them"
        )
    if not vectors.item_mask.any():
        raise ArtifactError(
            f"{model} reads texts of items, but no item has any; check the text columns with recbole-hnlm doctor"
        )
    return vectors.item_vectors, vectors.item_mask, vectors


def text_tables_of(dataset: Any, settings: HNLMSettings, device: torch.device, model: str) -> TextTables:
    """Return the text vectors of users and items that a training dataset carries.

    Raises:
        ArtifactError: as :func:`item_texts_of`.
    """
    *_, vectors = item_texts_of(dataset, model)
    return TextTables(vectors, TrainingInteractions.from_dataset(dataset), settings.alignment_source, device)
