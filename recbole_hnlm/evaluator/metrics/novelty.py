"""Novelty: how little known the recommended items are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from recbole.evaluator.base_metric import AbstractMetric
from recbole.utils import EvaluatorType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Novelty", "self_information"]


def self_information(items: NDArray[np.int64], counts: Mapping[int, int], n_users: int) -> NDArray[np.float64]:
    """Return ``-log2(c_i / |U|)`` in bits, c_i the users who interacted with the item in training, 1 for an item without any.

    Args:
        items: internal ids, of any shape.
        counts: c_i by internal id.
        n_users: |U|, users with training interactions.

    Returns:
        float64, of the shape of ``items``.
    """
    largest = max((int(items.max(initial=0)), *counts))
    known = np.ones(largest + 1)
    for item, count in counts.items():
        known[item] = max(count, 1)
    return np.asarray(np.log2(n_users / known[items]))


class Novelty(AbstractMetric):
    r"""Mean self-information of the first k items of all lists, in bits.

    .. math::
        \mathrm{Novelty@K} = \frac{1}{|U_e| K} \sum_{u \in U_e} \sum_{i \in R_u} - \log_2 \frac{c_i}{|U|}

    with :math:`U_e` the users who are evaluated. Source: Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, "Solving the apparent
    diversity-accuracy dilemma of recommender systems", PNAS 107(10), 2010 ("surprisal"). Departure: an item without training
    interactions counts as known to one user.
    """

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.items", "data.count_items", "data.count_users")
    smaller = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.topk = config["topk"]

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return the value at each cut-off, ``novelty@k``."""
        items = dataobject.get("rec.items").numpy()
        bits = self_information(items, dict(dataobject.get("data.count_items")), len(dataobject.get("data.count_users")))
        by_place = bits.mean(axis=0)
        return {f"novelty@{k}": round(float(by_place[:k].mean()), self.decimal_place) for k in self.topk}
