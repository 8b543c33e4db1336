"""Full-sort evaluation with many users a batch gives RecBole's figures."""

import pytest
from model_kit import PLAIN, build, make_config, write_random
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.trainer.trainer import Trainer
from recbole.utils import init_seed

from recbole_hnlm.model.recbole_graphs import on_current_scipy
from recbole_hnlm.trainer.hnlm import HNLMTrainer


@pytest.mark.parametrize("users_per_batch", [1, 7, 1000])
def test_figures_are_recboles_whatever_the_batch(tmp_path, monkeypatch, users_per_batch):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path)
    config = make_config(tmp_path, eval_batch_size=31, topk=[3, 10], valid_metric="MRR@10", **PLAIN)
    loader, _, valid, _ = build(config)
    init_seed(1, True)
    stock = on_current_scipy(LightGCN)(config, loader._dataset)
    expected = Trainer(config, stock).evaluate(valid, load_best_model=False)
    config = make_config(tmp_path, eval_batch_size=31 * users_per_batch, topk=[3, 10], valid_metric="MRR@10", **PLAIN)
    loader, model, valid, _ = build(config)
    model.load_state_dict(stock.state_dict())
    assert len(valid) == -(-40 // users_per_batch)
    found = HNLMTrainer(config, model).evaluate(valid, load_best_model=False)
    assert found == expected
    assert 0 < found["recall@10"] < 1
