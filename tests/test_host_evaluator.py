"""RecBole's metrics that crash in RecBole, and rows that were spread over ranks."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from recbole_hnlm.config import Config
from recbole_hnlm.evaluator.collector import RepairedCollector, interleave
from recbole_hnlm.evaluator.metrics.novelty import self_information
from recbole_hnlm.evaluator.registry import MetricEvaluator
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, load_checkpoint, run

TINY_ITEMS = 30

BEYOND_ACCURACY = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage"]


def _evaluate(config):
    """Two users get items (1, 2) and (1, 3) of four items that occur 5, 3, 1 and 1 times in training."""
    collector = RepairedCollector(config)
    collector.data_struct.set("data.num_items", 4)
    collector.data_struct.set("data.count_items", {1: 5, 2: 3, 3: 1, 4: 1})
    collector.data_struct.set("data.count_users", {1: 4, 2: 6})
    collector.data_struct.update_tensor("rec.items", torch.tensor([[1, 2], [1, 3]]))
    return collector, MetricEvaluator(config).evaluate(collector.get_data_struct())


def test_beyond_accuracy_metrics_have_their_hand_derived_values():
    config = Config(
        "BPR", "ml-100k", config_dict={"metrics": BEYOND_ACCURACY, "topk": [1, 2], "valid_metric": "ItemCoverage@2"}
    )
    collector, result = _evaluate(config)
    assert result == pytest.approx(
        {
            "itemcoverage@1": 1 / 4,
            "itemcoverage@2": 3 / 4,
            "averagepopularity@1": 5.0,
            "averagepopularity@2": (4.0 + 3.0) / 2,
            # Counts 0, 0, 0, 2: (2*4 - 4 - 1) * 2 / (4 * 2).
            "giniindex@1": 0.75,
            # Counts 0, 1, 1, 2: (-1*1 + 1*1 + 3*2) / (4 * 4).
            "giniindex@2": 0.375,
            # The rarest tenth of four items is one item: item 3.
            "tailpercentage@1": 0.0,
            "tailpercentage@2": (0.0 + 0.5) / 2,
        }
    )
    assert "rec.items" not in collector.data_struct
    assert collector.data_struct.get("data.num_items") == 4


def test_a_metric_of_ours_by_hand():
    keys = {"metrics": ["Novelty", "AveragePopularity"], "topk": [1, 2], "valid_metric": "Novelty@2"}
    config = Config("BPR", "ml-100k", config_dict=keys)
    assert config["valid_metric_bigger"]
    assert config["metrics"] == ["Novelty", "AveragePopularity"]
    _, result = _evaluate(config)
    bits = {item: math.log2(2 / count) for item, count in {1: 5, 2: 3, 3: 1}.items()}
    assert result["novelty@1"] == pytest.approx(bits[1], abs=1e-4)
    assert result["novelty@2"] == pytest.approx((2 * bits[1] + bits[2] + bits[3]) / 4, abs=1e-4)
    assert self_information(np.array([[7]]), {1: 5}, 8).tolist() == [[3.0]]  # never interacted with: as if by one user


def test_a_run_reports_a_metric_of_ours_and_is_stopped_by_it(workdir, tiny_keys):
    record = run(Config("BPR", "tiny", config_dict={**tiny_keys, "metrics": ["Novelty"], "valid_metric": "Novelty@5"})).record
    assert record["test_result"].keys() == {"novelty@5"}
    assert 0 < record["test_result"]["novelty@5"] < math.log2(41)
    assert record["best_valid_score"] == record["best_valid_result"]["novelty@5"]
    again = evaluate_checkpoint(record["checkpoint"], (f"--data_path={tiny_keys['data_path']}",)).record
    assert again["test_result"] == record["test_result"]


def test_beyond_accuracy_metrics_of_a_run_equal_a_recount_without_the_padding_item(workdir, tiny_keys):
    keys = {**tiny_keys, "metrics": [*BEYOND_ACCURACY, "MRR"], "topk": [5]}
    result = run(Config("Pop", "tiny", config_dict=keys))
    _, model, dataset, train, _, test = load_checkpoint(
        result.record["checkpoint"], {"data_path": tiny_keys["data_path"], "use_gpu": False}
    )
    consumed = test._sampler.used_ids
    truth = {user: set(test.uid2positive_item[user].tolist()) for user in test.uid_list.tolist()}
    lists = []
    for user, positives in truth.items():
        scores = model.item_cnt.squeeze(1).double()
        scores[[0, *(consumed[user] - positives)]] = -1
        lists.append(torch.topk(scores, 5)[1])
    shown = torch.stack(lists)
    assert result.test_result["itemcoverage@5"] == pytest.approx(len(shown.unique()) / TINY_ITEMS, abs=1e-4)
    assert dataset.item_num == TINY_ITEMS + 1
    occurrences = torch.bincount(train._dataset.inter_feat["item_id"], minlength=TINY_ITEMS + 1).double()
    assert result.test_result["averagepopularity@5"] == pytest.approx(float(occurrences[shown].mean()), abs=1e-4)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("total", [1, 2, 5, 8, 9])
def test_rows_spread_by_pytorch_come_back_once_and_in_order(world_size, total):
    rows = torch.arange(total * 2).reshape(total, 2)
    parts = [rows[list(DistributedSampler(range(total), world_size, rank, shuffle=False))] for rank in range(world_size)]
    assert torch.equal(interleave(parts, total), rows)
