"""Collects what metrics are computed from, so that all of RecBole's metrics work, in one process or several.

RecBole 1.2.1 calls ``.cpu()`` on everything it collected, counts and dictionaries included, so ItemCoverage, AveragePopularity,
GiniIndex and TailPercentage always crash. The collector here sets aside what is not a tensor while RecBole moves the tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.utils import EvaluatorType

from recbole_hnlm.evaluator.registry import MetricRegister, recboles_metrics_only

__all__ = ["RepairedCollector", "interleave"]


def interleave(parts: list[torch.Tensor], total: int) -> torch.Tensor:
    """Undo the distribution of rows over ranks by PyTorch's ``DistributedSampler`` without shuffling.

    Rank r of W holds rows r, r + W, r + 2W, ...; the sampler repeats rows from the start to make the parts equally long.

    Args:
        parts: one tensor ``[L, ...]`` per rank, all of the same shape.
        total: number of rows before the distribution.

    Returns:
        ``[total, ...]``, each row once, in the order of a single process.
    """
    stacked = torch.stack(parts, dim=1)  # [L, W, ...]
    return stacked.flatten(0, 1)[:total]


class RepairedCollector(Collector):
    """RecBole's collector, with the beyond-accuracy metrics repaired and the rows of all ranks brought together.

    Attributes:
        latest_topk: what RecBole calls ``rec.topk`` of the latest evaluation, by users in the order of the loader's
            ``uid_list``: ``[U, max(topk) + 1]``, hits and then the number of relevant items; None before any.
        latest_items: the lists themselves, ``rec.items``: internal ids, best first, ``[U, max(topk)]``; None where nothing
            asked for them.

    Departure from RecBole: ``data.num_items`` does not count the padding item, which nothing can recommend, so that
    ItemCoverage reaches 1 and GiniIndex is that of the real items.
    """

    def __init__(self, config: Any) -> None:
        with recboles_metrics_only(config.final_config_dict):
            super().__init__(config)
        self.register = MetricRegister(config)
        self._total_rows = 0
        self.latest_topk: torch.Tensor | None = None
        self.latest_items: torch.Tensor | None = None

    def keep_items(self) -> None:
        """Collect the recommended items from now on, whether or not a metric reads them; ratings have no lists."""
        if self.config["eval_type"] == EvaluatorType.RANKING:
            setattr(self.register, "rec.items", True)

    def collect_lists(self, lists: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Take the lists of all users at once, where :meth:`eval_batch_collect` takes the scores of some.

        Args:
            lists: the best items ``[n, max(topk)]``, and hits with the number of relevant items ``[n, max(topk) + 1]``.
        """
        for name, part in zip(("rec.items", "rec.topk"), lists, strict=True):
            if self.register.need(name):
                self.data_struct.set(name, part)

    def expect_rows(self, eval_data: Any) -> None:
        """Note how many rows (users, or labelled interactions) the coming evaluation has over all ranks."""
        self._total_rows = int(eval_data.sample_size)

    def data_collect(self, train_data: Any) -> None:
        """Collect counts from the training data."""
        super().data_collect(train_data)
        if self.register.need("data.num_items"):
            item_field = self.config["ITEM_ID_FIELD"]
            self.data_struct.set("data.num_items", train_data._dataset.num(item_field) - 1)

    def get_data_struct(self) -> Any:
        """Return what was collected, all ranks' rows included, and forget the rows."""
        content = self.data_struct._data_dict
        constants = {name: value for name, value in content.items() if not torch.is_tensor(value)}
        for name in constants:
            del self.data_struct[name]
        if not self.config["single_spec"]:
            for name, rows in list(content.items()):
                self.data_struct.set(name, self._gather(rows))
        struct = super().get_data_struct()
        if "rec.topk" in struct:
            self.latest_topk = struct.get("rec.topk")
        self.latest_items = struct.get("rec.items") if "rec.items" in struct else None
        for name, value in constants.items():
            struct.set(name, value)
            self.data_struct.set(name, value)
        return struct

    def _gather(self, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows) for _ in range(self.config["world_size"])]
        torch.distributed.all_gather(parts, rows.contiguous())
        return interleave(parts, self._total_rows)
