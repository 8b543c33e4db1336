"""Texts in the ranking of any model: RecBole's own, ours, and those from outside.

The loss knows nothing of it, so that a trained model can be ranked with any weight.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from recbole.data.interaction import Interaction

from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.data.semantics import vectors_of
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.all_items import predict_all_items
from recbole_hnlm.model.text_metric import TextMetric
from recbole_hnlm.model.text_scorer import TextScorer
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.scores import fuse_scores

__all__ = ["TextRanking", "ranking_with_texts"]

_PAIRS_AT_ONCE = 1 << 20


@cache
def ranking_with_texts(model_class: type[Any]) -> type[Any]:
    """Return a subclass of the same name whose scores are fused with the texts' (:class:`TextRanking`)."""
    names = {"__doc__": model_class.__doc__, "__module__": model_class.__module__}
    return type(model_class.__name__, (TextRanking, model_class), names)


class TextRanking:
    """Put before a model's class it adds ``text_score_weight`` times the texts' score to the model's.

    Formula: :func:`recbole_hnlm.utils.scores.fuse_scores` of the model's scores and those of
    :class:`recbole_hnlm.model.text_scorer.TextScorer`.

    Attributes:
        text_weight: w; None, with ``text_score_weight: auto``, until training has ended and it is chosen: the model ranks alone
            until then. It is part of the checkpoint.
        text_scorer: scores of the texts.
    """

    text_weight: float | None

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the model, then the texts' scores.

        Raises:
            ArtifactError: the data carries no vectors of items' texts.
        """
        super().__init__(config, dataset)  # type: ignore[call-arg]
        settings, vectors = settings_of(config), vectors_of(dataset)
        if vectors is None or vectors.ranking_vectors is None or vectors.ranking_mask is None:
            raise ArtifactError(
                f"text_score {settings.text_score} needs vectors of items' texts, but the data carries none; run through "
                "recbole-hnlm, which builds them, or use --text_score=none"
            )
        self.text_scorer = TextScorer(
            vectors.ranking_vectors,
            vectors.ranking_mask,
            TrainingInteractions.from_dataset(dataset),
            "mean" if settings.text_score == "mean" else "kernel",
            settings.text_kernel_temperature,
            config["device"],
            metric_seed=int(config["seed"]) if settings.text_metric == "learned" else None,
        )
        weight = settings.text_score_weight
        self._given_weight = None if weight == "auto" else float(weight)
        self.text_weight = self._given_weight
        self.other_parameter_name = [*getattr(self, "other_parameter_name", ()), "text_weight", "text_metric"]

    def learn_text_metric(self) -> None:
        """Learn the metric of the texts where ``text_metric`` asks for one and the checkpoint has given none."""
        _ = self.text_scorer.units

    @property
    def text_metric(self) -> dict[str, torch.Tensor] | None:
        """The learned metric of the texts, part of the checkpoint; None where there is none."""
        metric = self.text_scorer.metric
        return None if metric is None else asdict(metric)

    @text_metric.setter
    def text_metric(self, state: dict[str, torch.Tensor] | None) -> None:
        self.text_scorer.metric = None if state is None else TextMetric(**state)

    def load_other_parameter(self, para: Any) -> None:
        """Load the rest of a checkpoint; a weight that the keys give wins over the one that was chosen then."""
        super().load_other_parameter(para)  # type: ignore[misc]
        if self._given_weight is not None:
            self.text_weight = self._given_weight

    def model_scores(self, interaction: Any) -> torch.Tensor:
        """Return the model's own scores of all items for the users of a batch, float ``[n, I]``."""
        users = interaction[self.USER_ID]  # type: ignore[attr-defined]
        try:
            return super().full_sort_predict(interaction).view(len(users), -1)  # type: ignore[misc]
        except NotImplementedError:
            items = Interaction({self.ITEM_ID: torch.arange(self.n_items, device=users.device)})  # type: ignore[attr-defined]
            return predict_all_items(super().predict, interaction, items, _PAIRS_AT_ONCE)  # type: ignore[misc]

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Return the fused scores of every item for each user of the batch, float ``[n * I]``, without gradient."""
        scores = self.model_scores(interaction)
        if not self.text_weight:
            return scores.reshape(-1)
        users = interaction[self.USER_ID]  # type: ignore[attr-defined]
        texts = self.text_scorer.scores(users)
        return fuse_scores(scores, texts, self.text_weight, self.text_scorer.known).reshape(-1)

    def predict(self, interaction: Any) -> torch.Tensor:
        """Return the fused scores of pairs (user_id, item_id), float ``[n]``: the same as those in the whole ranking."""
        if not self.text_weight:
            return super().predict(interaction)  # type: ignore[misc]
        users, places = torch.unique(interaction[self.USER_ID], return_inverse=True)  # type: ignore[attr-defined]
        whole = self.full_sort_predict(Interaction({self.USER_ID: users})).view(len(users), -1)  # type: ignore[attr-defined]
        return whole[places, interaction[self.ITEM_ID]]  # type: ignore[attr-defined]
