"""Training that was stopped and resumed equals training that never stopped, where the model draws for itself."""

import dataclasses

import numpy as np
import pytest
import torch
from model_kit import make_config, prepare, random_vectors, write_random

from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.trainer.factory import safe_trainer
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import get_model_class
from recbole_hnlm.utils.values import load_yaml


def train(tmp_path, name, kind, **keys):
    """Train 4 epochs, or stop after the first, or go on from there; returns losses and final weights."""
    epochs = 1 if kind == "stopped" else 4
    resume = str(tmp_path / "saved" / "stopped.last.pth") if kind == "rest" else None
    own = load_yaml(properties_dir() / "model" / f"{name}.yaml") | {"embedding_size": 16, "train_batch_size": 64}
    config = make_config(tmp_path, get_model_class(name), **(own | keys | {"epochs": epochs, "resume": resume}))
    config["run_id"] = kind
    config.to_saved = dict
    data, valid, _ = prepare(config)
    vectors = random_vectors(data._dataset, missing=0.2)
    near = np.random.default_rng(1).integers(1, data._dataset.item_num, size=(len(vectors.pair_vectors), 3))
    data._dataset.semantic_vectors = dataclasses.replace(vectors, pair_items=near.astype(np.int32))
    loader = build_train_loader(config, data)
    torch.manual_seed(7)
    model = config.model_class(config, data._dataset)
    trainer = safe_trainer(HNLMTrainer)(config, model)
    trainer.fit(loader, valid, verbose=False)
    return trainer.train_loss_dict, model.state_dict()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("HNLMLightGCN", {"alignment_max_batch": 6, "alignment_weight": 0.5}),
        ("HNLMLightGCN", {"negative_route": "finetuned", "semantic_candidates": 3, "alignment_weight": 0.0}),
        ("HNLMLightGCN", {"worker": 1, "alignment_max_batch": 6}),
        ("HNLMLightGCN", {"rank_loss": "sl_at_k", "loss_negatives": 20, "loss_at_k": 3, "loss_refresh_epochs": 3}),
        ("HNLMSGL", {"alignment_max_batch": 6, "rank_loss": "softmax", "loss_negatives": 20}),
        ("HNLMNCL", {"num_clusters": 4, "warm_up_step": 0, "m_step": 3}),
        ("RLMRecGenLightGCN", {"alignment_source": "text"}),
    ],
)
def test_resumed_equals_straight_bit_for_bit(tmp_path, monkeypatch, name, keys):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path)
    found = {kind: train(tmp_path, name, kind, **keys) for kind in ("straight", "stopped", "rest")}
    assert found["rest"][0] == found["straight"][0]
    weights = found["straight"][1]
    assert found["rest"][1].keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in found["rest"][1].items())
