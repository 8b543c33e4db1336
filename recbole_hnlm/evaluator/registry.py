"""Metrics by name: RecBole's, and ours, which lie in :mod:`recbole_hnlm.evaluator.metrics`.

RecBole fills its table of metrics when it is imported, and its configuration, evaluator and collector read that table alone.
Nothing is added to it: RecBole's own constructors are shown the metrics that they know (:func:`recboles_metrics_only`), and the
evaluator and the register here take the place of RecBole's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import OrderedDict
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from recbole.evaluator import Evaluator
from recbole.evaluator.register import Register, metrics_dict

from recbole_hnlm.evaluator import metrics as own_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MetricEvaluator", "MetricRegister", "metric_classes", "recboles_metrics_only"]

_ANY_RANKING_METRIC = "Recall"


@cache
def metric_classes() -> Mapping[str, type[Any]]:
    """Return the classes of all metrics by their name in lower case."""
    found = dict(metrics_dict)
    for info in pkgutil.iter_modules(own_metrics.__path__):
        module = importlib.import_module(f"{own_metrics.__name__}.{info.name}")
        own = {name.lower(): value for name, value in vars(module).items() if name.lower() == info.name.replace("_", "")}
        found.update(own)
    return found


@contextmanager
def recboles_metrics_only(final: dict[str, Any]) -> Iterator[None]:
    """Let ``metrics`` of a configuration's final dictionary name RecBole's metrics alone while the block runs."""
    given = final["metrics"]
    recboles = [name for name in given if str(name).lower() in metrics_dict]
    final["metrics"] = recboles or [_ANY_RANKING_METRIC]
    try:
        yield
    finally:
        final["metrics"] = given


class MetricRegister(Register):
    """RecBole's register of what the metrics need, of ours too."""

    def _build_register(self) -> None:
        for metric in self.metrics:
            for need in metric_classes()[metric].metric_need:
                setattr(self, need, True)


class MetricEvaluator(Evaluator):
    """RecBole's evaluator with all metrics."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.metrics = [metric.lower() for metric in config["metrics"]]
        self.metric_class = {metric: metric_classes()[metric](config) for metric in self.metrics}

    def evaluate(self, dataobject: Any) -> OrderedDict[str, float]:
        """Return every metric's value as a plain number: NumPy 2 would show its own with their type in each line of the log."""
        return OrderedDict((name, float(value)) for name, value in super().evaluate(dataobject).items())
