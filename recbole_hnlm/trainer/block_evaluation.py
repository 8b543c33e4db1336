"""Full ranking in blocks of users with compiled selection, for whichever of RecBole's trainers on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from recbole.trainer.trainer import Trainer
from tqdm import tqdm

from recbole_hnlm.evaluator.full_ranking import can_rank_blocks, user_blocks
from recbole_hnlm.evaluator.top_items import RankedRows

if TYPE_CHECKING:
    from recbole_hnlm.evaluator.collector import RepairedCollector

__all__ = ["BlockEvaluation", "on_one_cpu"]


def on_one_cpu(config: Any) -> bool:
    """Whether one process computes on the CPU, which compiled loops serve."""
    return bool(config["single_spec"]) and torch.device(config["device"]).type == "cpu"


class BlockEvaluation:
    """Mixin before one of RecBole's trainers: the metrics of its ``evaluate``, sooner where only the best items count."""

    config: Any
    model: Any
    evaluator: Any
    eval_collector: RepairedCollector
    item_tensor: Any

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> Any:
        """Evaluate as RecBole does; by blocks where it can be."""
        is_recboles = type(self)._full_sort_batch_eval is Trainer._full_sort_batch_eval  # type: ignore[attr-defined]
        ranks = on_one_cpu(self.config) and is_recboles and can_rank_blocks(eval_data, self.eval_collector.register)
        if load_best_model or not ranks:
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)  # type: ignore[misc]
        self.model.eval()
        self.tot_item_num = eval_data._dataset.item_num
        if self.item_tensor is None:
            self.item_tensor = eval_data._dataset.get_item_feature()
        blocks = user_blocks(eval_data, small=getattr(self.model, "scores_by_products", False))
        ranked = RankedRows(int(eval_data.sample_size), max(self.config["topk"]))
        with tqdm(total=int(eval_data.sample_size), desc="Evaluate", unit="user", ncols=100, disable=not show_progress) as bar:
            for interaction, histories, positives in blocks:
                scores = self._full_sort_batch_eval((interaction, None, None, None))[1]  # type: ignore[attr-defined]
                ranked.add(scores, histories, positives)
                bar.update(len(interaction))
        self.eval_collector.collect_lists(ranked.lists)
        self.eval_collector.model_collect(self.model)
        result = self.evaluator.evaluate(self.eval_collector.get_data_struct())
        self.wandblogger.log_eval_metrics(result, head="eval")  # type: ignore[attr-defined]
        return result
