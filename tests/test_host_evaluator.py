"""RecBole's metrics that crash in RecBole, and rows that were spread over ranks."""

import pytest
import torch
from recbole.evaluator import Evaluator
from torch.utils.data.distributed import DistributedSampler

from recbole_hnlm.config import Config
from recbole_hnlm.evaluator.collector import RepairedCollector, interleave
from recbole_hnlm.quick_start.runner import load_checkpoint, run

TINY_ITEMS = 30

BEYOND_ACCURACY = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage"]


def _evaluate(config):
    """Two users get items (1, 2) and (1, 3) of four items that occur 5, 3, 1 and 1 times in training."""
    collector = RepairedCollector(config)
    collector.data_struct.set("data.num_items", 4)
    collector.data_struct.set("data.count_items", {1: 5, 2: 3, 3: 1, 4: 1})
    collector.data_struct.update_tensor("rec.items", torch.tensor([[1, 2], [1, 3]]))
    return collector, Evaluator(config).evaluate(collector.get_data_struct())


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
