"""Choosing on validation how much texts and other models weigh in the ranking (`text_score_weight`, `fuse_weight`: auto)."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_hnlm.evaluator.full_ranking import can_rank_blocks, user_blocks
from recbole_hnlm.evaluator.top_items import RankedRows
from recbole_hnlm.trainer.block_evaluation import on_one_cpu
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["WEIGHTS", "check_validation", "choose_weights", "has_open_weights", "score_weights"]

WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
"""Weights that are tried; 0 leaves the scores out."""

_MOST_USERS = 4096
_ROUNDS = 2


def has_open_weights(model: Any) -> bool:
    """Whether a model's ranking has a weight that is still to be chosen."""
    return None in getattr(model, "fusion_weights", ())


def check_validation(valid_data: Any) -> None:
    """Refuse to choose a weight where there is no ranking of all items for validation users.

    Raises:
        ConfigError: says what to give instead.
    """
    is_empty = not valid_data or valid_data.sample_size == 0
    if is_empty or not isinstance(valid_data, FullSortEvalDataLoader):
        found = "the configuration has no validation split" if is_empty else "validation ranks sampled items alone"
        raise ConfigError(
            f"text_score_weight and fuse_weight auto are chosen on validation in full ranking, but {found}: give numbers, such "
            "as --text_score_weight=1 and --fuse_weight=1, or let eval_args have a validation part and mode full"
        )


def choose_weights(trainer: Any, valid_data: Any) -> list[dict[float, float]]:
    """Give the trainer's model the weights with the best ``valid_metric`` on validation, the smallest of equals.

    They are chosen one after another, each with those before it at their choice; where there are several, once more with all
    others at theirs.

    Returns:
        The score of each weight that was tried, by the weights' places; empty for those that were given.
    """
    sign = 1 if trainer.config["valid_metric_bigger"] else -1
    model = trainer.model
    scores: list[dict[float, float]] = [{} for _ in model.fusion_weights]
    places = [place for place, weight in enumerate(model.fusion_weights) if weight is None]
    for _ in range(_ROUNDS if len(places) > 1 else 1):
        before = list(model.fusion_weights)
        for place in places:
            scores[place] = found = score_weights(trainer, valid_data, place)
            best = max(found, key=lambda weight: (sign * found[weight], -weight))
            model.fusion_weights = [best if other == place else weight for other, weight in enumerate(model.fusion_weights)]
        if model.fusion_weights == before:
            break
    return scores


@torch.no_grad()
def score_weights(trainer: Any, valid_data: Any, place: int, weights: Sequence[float] = WEIGHTS) -> dict[float, float]:
    """Return ``valid_metric`` of the trainer's model with each weight, on up to about 4,096 users of the validation split.

    All scores are computed once for all weights. Of a larger split every n-th batch of users is taken.

    Args:
        trainer: one of ours, after training; its model is a :class:`recbole_hnlm.model.fused_ranking.FusedRanking`.
        valid_data: RecBole's loader of the validation split, in full ranking.
        place: of the weight among the model's; the others keep theirs, and what has none yet is left out.
        weights: to try.
    """
    model, metric = trainer.model, trainer.config["valid_metric"].lower()
    model.eval()
    collectors = {weight: _collector(trainer) for weight in weights}
    stride = math.ceil(valid_data.sample_size / _MOST_USERS) if trainer.config["single_spec"] else 1
    by_blocks = on_one_cpu(trainer.config) and can_rank_blocks(valid_data, trainer.eval_collector.register)
    (_collect_blocks if by_blocks else _collect_batches)(trainer, valid_data, place, collectors, stride)
    found = {}
    for weight, collector in collectors.items():
        collector.model_collect(model)
        collector.expect_rows(valid_data)
        found[weight] = float(trainer.evaluator.evaluate(collector.get_data_struct())[metric])
    return found


def _collect_blocks(trainer: Any, valid_data: Any, place: int, collectors: Mapping[float, Any], stride: int) -> None:
    """Collect the lists under each weight, found by the compiled ranking."""
    model, longest = trainer.model, max(trainer.config["topk"])
    ranked = {weight: RankedRows(int(valid_data.sample_size), longest) for weight in collectors}
    small = getattr(model, "scores_by_products", False)
    for interaction, histories, positives in user_blocks(valid_data, small=small, every=stride):
        own, added = model.fused_scores(interaction, without=place), model.added_scores(interaction, place)
        scores = torch.empty_like(own)
        for weight, rows in ranked.items():
            torch.add(own, added, alpha=weight, out=scores)
            rows.add(scores, histories, positives)
    for weight, collector in collectors.items():
        collector.collect_lists(ranked[weight].lists)


def _collect_batches(trainer: Any, valid_data: Any, place: int, collectors: Mapping[float, Any], stride: int) -> None:
    """Collect as RecBole does: on an accelerator, in several processes, and for metrics that read more than lists."""
    for number, (interaction, history, positive_u, positive_i) in enumerate(valid_data):
        if number % stride:
            continue
        batch = interaction.to(trainer.device)
        own, added = trainer.model.fused_scores(batch, without=place), trainer.model.added_scores(batch, place)
        for weight, collector in collectors.items():
            scores = own + weight * added
            scores[:, 0] = -np.inf
            if history is not None:
                scores[history] = -np.inf
            collector.eval_batch_collect(scores, interaction, positive_u, positive_i)


def _collector(trainer: Any) -> Any:
    """Return a collector of its own that holds what the trainer's has of the training data."""
    collector = copy.copy(trainer.eval_collector)
    collector.data_struct = copy.deepcopy(trainer.eval_collector.data_struct)
    return collector
