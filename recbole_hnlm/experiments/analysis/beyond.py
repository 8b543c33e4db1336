"""What the lists of a run are like beyond being right: coverage, concentration, popularity, novelty."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from recbole.evaluator.collector import DataStruct

from recbole_hnlm.evaluator.registry import metric_classes

if TYPE_CHECKING:
    from recbole_hnlm.experiments.analysis.lists import Lists

__all__ = ["BEYOND_ACCURACY", "beyond_accuracy"]

BEYOND_ACCURACY = ("ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage", "ShannonEntropy", "Novelty")
"""RecBole's metrics of lists, of which the first four crash in RecBole 1.2.1, and ours."""

_PLACES = 12


def beyond_accuracy(lists: Lists) -> dict[str, float]:
    """Return each of :data:`BEYOND_ACCURACY` at each cut-off, such as ``giniindex@10``, whatever ``metrics`` the run named.

    Items are counted without the padding id; popularity is the number of training interactions.
    """
    struct = DataStruct()
    struct.set("rec.items", torch.from_numpy(lists.items))
    struct.set("data.num_items", lists.training.n_items - 1)
    struct.set("data.count_items", Counter(lists.training.items.tolist()))
    struct.set("data.count_users", Counter(lists.training.users.tolist()))
    keys = {"topk": lists.config["topk"], "tail_ratio": lists.config["tail_ratio"], "metric_decimal_place": _PLACES}
    found: dict[str, float] = {}
    for name in BEYOND_ACCURACY:
        found |= {key: float(value) for key, value in metric_classes()[name.lower()](keys).calculate_metric(struct).items()}
    return found
