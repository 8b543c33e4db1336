"""A ranking metric's value for each user, of which RecBole reports only the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct

from recbole_hnlm.evaluator.registry import metric_classes

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["is_per_user", "value_table", "values_per_user"]


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
    return value_table(config, rows.numpy(), metric)[:, k - 1].astype(np.float32)


def value_table(config: Any, rows: npt.NDArray[np.integer[Any]], metric: str) -> npt.NDArray[np.float64]:
    """Return a metric at every cut-off from 1 to the longest for each user, by RecBole's own formula.

    Args:
        config: with the ``topk`` and ``metric_decimal_place`` of the evaluation.
        rows: hits and then the number of relevant items, ``[U, K + 1]``.
        metric: a name that :func:`is_per_user` accepts.

    Returns:
        float64 ``[U, K]``.
    """
    # RecBole's metrics hand the values of all users and cut-offs to this method, which then takes the mean.
    keeping = type("PerUser", (metric_classes()[metric.lower()],), {"topk_result": lambda self, name, values: values})
    struct = DataStruct()
    struct.set("rec.topk", torch.from_numpy(np.ascontiguousarray(rows)))
    values: npt.NDArray[np.float64] = keeping(config).calculate_metric(struct)
    return values.astype(np.float64)
