"""A ranking metric's value for each user, of which RecBole reports only the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct

from recbole_hnlm.evaluator.registry import metric_classes

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

__all__ = ["is_per_user", "values_per_user"]


def is_per_user(metric: str) -> bool:
    """Whether RecBole computes a metric as a mean over users of a value at each cut-off (Recall, NDCG, MRR, ...)."""
    metric_class = metric_classes().get(metric.lower())
    return metric_class is not None and issubclass(metric_class, TopkMetric) and list(metric_class.metric_need) == ["rec.topk"]


def values_per_user(config: Any, rows: torch.Tensor, metric: str, k: int) -> npt.NDArray[np.float32]:
    """Return a metric at one cut-off for each user, by RecBole's own formula.

    Args:
        config: with the ``topk`` and ``metric_decimal_place`` of the evaluation.
        rows: ``[U, max(topk) + 1]``, see ``RepairedCollector.latest_topk``.
        metric: a name that :func:`is_per_user` accepts.
        k: the cut-off, at most ``max(topk)``.

    Returns:
        float32 ``[U]``; their mean, rounded, is what RecBole reports.
    """
    # RecBole's metrics hand the values of all users and cut-offs to this method, which then takes the mean.
    keeping = type("PerUser", (metric_classes()[metric.lower()],), {"topk_result": lambda self, name, values: values})
    struct = DataStruct()
    struct.set("rec.topk", rows)
    values: npt.NDArray[np.float64] = keeping(config).calculate_metric(struct)
    return values[:, k - 1].astype(np.float32)
