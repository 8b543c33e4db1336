"""A ranking of any model (RecBole's own, ours, and those from outside) that adds the scores of other models and of texts.

The loss knows nothing of it, so that a trained model can be ranked with any weights.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from recbole.data.interaction import Interaction

from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.data.semantics import vectors_of
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.all_items import predict_all_items
from recbole_hnlm.model.text_metric import TextMetric
from recbole_hnlm.model.text_scorer import TextScorer
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.scores import standardise_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.config.settings import HNLMSettings

__all__ = ["FusedRanking", "Part", "fused_ranking", "is_fused"]

_PAIRS_AT_ONCE = 1 << 20


class Part(NamedTuple):
    """Another trained model whose scores are added.

    Attributes:
        model: in evaluation mode, on the device of the run, of the same users and items.
        path: its checkpoint.
        digest: of that checkpoint, by which a weight that was chosen for it is known again.
    """

    model: Any
    path: str
    digest: str


def is_fused(settings: HNLMSettings) -> bool:
    """Whether a run's ranking adds anything to the model's own scores."""
    return settings.text_score != "none" or bool(settings.fuse_with)


@cache
def fused_ranking(model_class: type[Any]) -> type[Any]:
    """Return a subclass of the same name whose scores are fused with others (:class:`FusedRanking`)."""
    names = {"__doc__": model_class.__doc__, "__module__": model_class.__module__}
    return type(model_class.__name__, (FusedRanking, model_class), names)


class FusedRanking:
    r"""Put before a model's class it adds the scores of other models (``fuse_with``) and of texts (``text_score``).

    Formula: :math:`z(s_u)_i + \sum_p w_p z(s^p_u)_i + w z(s^{text}_u)_i`, z giving a user's scores over the items mean 0 and
    standard deviation 1: a weighted CombSUM (Fox and Shaw, "Combination of Multiple Searches", TREC-2, 1994).

    A weight that is to be chosen (``auto``) is None until training has ended; the scores that it belongs to are left out until
    then. Weights are part of the checkpoint.

    Attributes:
        fused_parts: the other models, given once by :meth:`add_parts`.
        part_weights: w_p of each.
        text_weight: w.
        text_scorer: scores of the texts; None without ``text_score``.
    """

    fused_parts: list[Part]
    part_weights: list[float | None]
    text_weight: float | None
    text_scorer: TextScorer | None

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the model, then the texts' scores.

        Raises:
            ArtifactError: the data carries no vectors of items' texts.
        """
        super().__init__(config, dataset)  # type: ignore[call-arg]
        settings = settings_of(config)
        self.fused_parts, self.part_weights = [], []
        self._given_part_weight = _given(settings.fuse_weight)
        self._given_weight = _given(settings.text_score_weight) if settings.text_score != "none" else 0.0
        self.text_weight = self._given_weight
        self.text_scorer = None if settings.text_score == "none" else _text_scorer(config, settings, dataset)
        self.other_parameter_name = [*getattr(self, "other_parameter_name", ()), "text_weight", "text_metric", "fusion"]

    def add_parts(self, parts: Sequence[Part]) -> None:
        """Take the other models, before a checkpoint is loaded."""
        self.fused_parts = list(parts)
        self.part_weights = [self._given_part_weight] * len(parts)

    # --- state that a checkpoint keeps -----------------------------------------------------------------------------------

    @property
    def fusion(self) -> dict[str, list[Any]] | None:
        """The weights of other models by their checkpoints' digests; None where there are none."""
        digests = [part.digest for part in self.fused_parts]
        return {"digests": digests, "weights": list(self.part_weights)} if digests else None

    @fusion.setter
    def fusion(self, state: dict[str, list[Any]] | None) -> None:
        known = {} if state is None else dict(zip(state["digests"], state["weights"], strict=True))
        if self._given_part_weight is None:
            self.part_weights = [known.get(part.digest) for part in self.fused_parts]

    @property
    def text_metric(self) -> dict[str, torch.Tensor] | None:
        """The learned metric of the texts; None where there is none."""
        metric = None if self.text_scorer is None else self.text_scorer.metric
        return None if metric is None else asdict(metric)

    @text_metric.setter
    def text_metric(self, state: dict[str, torch.Tensor] | None) -> None:
        if self.text_scorer is not None:
            self.text_scorer.metric = None if state is None else TextMetric(**state)

    def learn_text_metric(self) -> None:
        """Learn the metric of the texts where ``text_metric`` asks for one and the checkpoint has given none."""
        if self.text_scorer is not None:
            _ = self.text_scorer.units

    def load_other_parameter(self, para: Any) -> None:
        """Load the rest of a checkpoint; a weight that the keys give wins over the one that was chosen then."""
        super().load_other_parameter(para)  # type: ignore[misc]
        if self._given_weight is not None:
            self.text_weight = self._given_weight

    # --- weights ---------------------------------------------------------------------------------------------------------

    @property
    def fusion_weights(self) -> list[float | None]:
        """All weights, those of the other models first, that of the texts last where there are texts."""
        return [*self.part_weights, *([] if self.text_scorer is None else [self.text_weight])]

    @fusion_weights.setter
    def fusion_weights(self, weights: Sequence[float | None]) -> None:
        self.part_weights = list(weights[: len(self.fused_parts)])
        if self.text_scorer is not None:
            self.text_weight = weights[-1]

    # --- scores ----------------------------------------------------------------------------------------------------------

    def model_scores(self, interaction: Any) -> torch.Tensor:
        """Return the model's own scores of all items for the users of a batch, float ``[n, I]``."""
        return _all_scores(super(), interaction, self)

    def added_scores(self, interaction: Any, place: int) -> torch.Tensor:
        """Return the standardised scores that the weight of this place is for, float ``[n, I]``; the padding id has 0."""
        if place < len(self.fused_parts):
            model = self.fused_parts[place].model
            return standardise_items(_all_scores(model, interaction, model).float())
        scorer: Any = self.text_scorer
        return scorer.standardised(interaction[self.USER_ID])  # type: ignore[attr-defined]

    def fused_scores(self, interaction: Any, without: int | None = None) -> torch.Tensor:
        """Return the model's standardised scores with all others at their weights, float ``[n, I]``; the padding id has 0.

        Args:
            interaction: n users.
            without: a place whose scores are left out.
        """
        fused = standardise_items(self.model_scores(interaction))
        for place, weight in enumerate(self.fusion_weights):
            if not weight or place == without:
                continue
            if place < len(self.fused_parts):
                fused.add_(self.added_scores(interaction, place), alpha=weight)
            else:
                scorer: Any = self.text_scorer
                scorer.add_to(fused, interaction[self.USER_ID], weight)  # type: ignore[attr-defined]
        return fused

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Return the fused scores of every item for each user of the batch, float ``[n * I]``, without gradient."""
        if not any(self.fusion_weights):
            return self.model_scores(interaction).reshape(-1)
        return self.fused_scores(interaction).view(-1)

    def predict(self, interaction: Any) -> torch.Tensor:
        """Return the fused scores of pairs (user_id, item_id), float ``[n]``: the same as those in the whole ranking."""
        if not any(self.fusion_weights):
            return super().predict(interaction)  # type: ignore[misc]
        users, places = torch.unique(interaction[self.USER_ID], return_inverse=True)  # type: ignore[attr-defined]
        whole = self.full_sort_predict(Interaction({self.USER_ID: users})).view(len(users), -1)  # type: ignore[attr-defined]
        return whole[places, interaction[self.ITEM_ID]]  # type: ignore[attr-defined]


def _given(weight: Any) -> float | None:
    return None if weight == "auto" else float(weight)


def _text_scorer(config: Any, settings: HNLMSettings, dataset: Any) -> TextScorer:
    vectors = vectors_of(dataset)
    if vectors is None or vectors.ranking_vectors is None or vectors.ranking_mask is None:
        raise ArtifactError(
            f"text_score {settings.text_score} needs vectors of items' texts, but the data carries none; run through "
            "recbole-hnlm, which builds them, or use --text_score=none"
        )
    return TextScorer(
        vectors.ranking_vectors,
        vectors.ranking_mask,
        TrainingInteractions.from_dataset(dataset),
        "mean" if settings.text_score == "mean" else "kernel",
        settings.text_kernel_temperature,
        config["device"],
        metric_seed=int(config["seed"]) if settings.text_metric == "learned" else None,
    )


def _all_scores(scorer: Any, interaction: Any, model: Any) -> torch.Tensor:
    """Return the scores of all items by ``scorer``, the model or its superclass, float ``[n, I]``."""
    users = interaction[model.USER_ID]
    try:
        return scorer.full_sort_predict(interaction).view(len(users), -1)
    except NotImplementedError:
        items = Interaction({model.ITEM_ID: torch.arange(model.n_items, device=users.device)})
        return predict_all_items(scorer.predict, interaction, items, _PAIRS_AT_ONCE)
