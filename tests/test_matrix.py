"""Every backbone with every negative sampler on ml-100k, through the runner.

One epoch of each model is part of `make test`; the matrix, two epochs of each pair, is `make test-matrix`.
"""

import math

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.utils.registry import model_names, negative_sampler_names

BACKBONES = sorted(name for name in model_names() if name.startswith("HNLM"))
PLAIN = ("SimGCL", "XSimGCL")

# The expected Recall@10 of 10 of 1,682 items drawn without looking.
CHANCE = 10 / 1682
LEAST_RECALL = 4 * CHANCE


# Alignment with the items' own text: the semantic term that needs no LLM. Its vectors are made once for all runs.
ALIGNED = {"alignment_weight": 0.003, "alignment_source": "text"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("matrix")


def run_on_ml100k(folder, monkeypatch, model, **keys):
    monkeypatch.chdir(folder)
    fixed = {"topk": [10], "metrics": ["Recall", "NDCG"], "valid_metric": "NDCG@10", "learning_rate": 0.005, "eval_step": 1}
    fixed |= {"seed": 2020, "show_progress": False, "negative_route": "none", "alignment_weight": 0.0}
    return run(Config(model, "ml-100k", config_dict=fixed | keys, strict=False)).record


def check(record, epochs):
    losses = [sum(loss) if isinstance(loss, (list, tuple)) else loss for loss in record["train_loss"]]
    assert len(losses) == epochs
    assert all(math.isfinite(loss) for loss in losses)
    result = record["test_result"]
    assert LEAST_RECALL < result["recall@10"] < 0.5
    assert 0 < result["ndcg@10"] < 0.5


@pytest.mark.parametrize("model", [*BACKBONES, *PLAIN])
def test_one_epoch_of_each_model(folder, monkeypatch, model):
    check(run_on_ml100k(folder, monkeypatch, model, epochs=1), 1)


@pytest.mark.parametrize(("model", "weight"), [("HNLMLightGCN", 0.003), ("HNLMSimGCL", 0.0003)])
def test_text_alignment_does_not_hold_up_the_start(folder, monkeypatch, model, weight):
    # SimGCL's outputs start small, where the gradient of a cosine is large: with a weight of 0.003 it learned no ranking for
    # 14 epochs, and early stopping ended it there.
    alone, aligned = (
        run_on_ml100k(folder, monkeypatch, model, epochs=4, **keys) for keys in ({}, {**ALIGNED, "alignment_weight": weight})
    )
    assert Config(model, "ml-100k").settings.alignment_weight == weight  # the model's own default
    assert aligned["test_result"]["ndcg@10"] > 0.7 * alone["test_result"]["ndcg@10"]


@pytest.mark.matrix
@pytest.mark.parametrize("sampler", negative_sampler_names())
@pytest.mark.parametrize("model", BACKBONES)
def test_two_epochs_of_each_backbone_with_each_sampler(folder, monkeypatch, model, sampler):
    keys = ALIGNED | {"negative_sampler": sampler, "count_false_negatives": True}
    record = run_on_ml100k(folder, monkeypatch, model, epochs=2, **keys)
    check(record, 2)
    # Users have 3 to 148 of 1,682 items held out: a sampler that chose them on purpose, or none at all, is beyond these.
    assert all(0 < rate < 0.2 for rate in record["false_negative_rates"])
