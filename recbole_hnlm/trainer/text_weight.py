"""Choosing on validation how much the texts weigh in the ranking (``text_score_weight: auto``)."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.scores import standardise_rows, text_part

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WEIGHTS", "check_validation", "score_weights"]

WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
"""Weights that are tried; 0 leaves the texts out."""

_MOST_USERS = 4096


def check_validation(valid_data: Any) -> None:
    """Refuse to choose a weight where there is no ranking of all items for validation users.

    Raises:
        ConfigError: says what to give instead.
    """
    is_empty = not valid_data or valid_data.sample_size == 0
    if is_empty or not isinstance(valid_data, FullSortEvalDataLoader):
        found = "the configuration has no validation split" if is_empty else "validation ranks sampled items alone"
        raise ConfigError(
            f"text_score_weight auto is chosen on validation in full ranking, but {found}: give a number, such as "
            "--text_score_weight=1, or let eval_args have a validation part and mode full"
        )


@torch.no_grad()
def score_weights(trainer: Any, valid_data: Any, weights: Sequence[float] = WEIGHTS) -> dict[float, float]:
    """Return ``valid_metric`` of the trainer's model with each weight, on up to about 4,096 users of the validation split.

    The model's and the texts' scores are computed once for all weights. Of a larger split every n-th batch of users is taken.

    Args:
        trainer: one of ours, after training; its model is a :class:`recbole_hnlm.model.text_ranking.TextRanking`.
        valid_data: RecBole's loader of the validation split, in full ranking.
        weights: to try.
    """
    model, metric = trainer.model, trainer.config["valid_metric"].lower()
    model.eval()
    collectors = [_collector(trainer) for _ in weights]
    stride = math.ceil(valid_data.sample_size / _MOST_USERS) if trainer.config["single_spec"] else 1
    for place, (interaction, history, positive_u, positive_i) in enumerate(valid_data):
        if place % stride:
            continue
        batch = interaction.to(trainer.device)
        own = standardise_rows(model.model_scores(batch)[:, 1:])
        texts = text_part(model.text_scorer.scores(batch[model.USER_ID]), model.text_scorer.known)
        for weight, collector in zip(weights, collectors, strict=True):
            scores = torch.nn.functional.pad(own + weight * texts, (1, 0), value=-np.inf)
            if history is not None:
                scores[history] = -np.inf
            collector.eval_batch_collect(scores, interaction, positive_u, positive_i)
    found = {}
    for weight, collector in zip(weights, collectors, strict=True):
        collector.model_collect(model)
        collector.expect_rows(valid_data)
        found[weight] = float(trainer.evaluator.evaluate(collector.get_data_struct())[metric])
    return found


def _collector(trainer: Any) -> Any:
    """Return a collector of its own that holds what the trainer's has of the training data."""
    collector = copy.copy(trainer.eval_collector)
    collector.data_struct = copy.deepcopy(trainer.eval_collector.data_struct)
    return collector
