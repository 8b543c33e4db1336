"""What holds for every negative sampler, whatever its formula."""

import pytest
import torch
from model_kit import NO_SEMANTICS, build, make_config, write_blocks, write_random

from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.trainer.factory import safe_trainer
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.registry import negative_sampler_names

NAMES = negative_sampler_names()


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path)


def keys_of(name, **keys):
    return {**NO_SEMANTICS, "negative_sampler": name, "num_candidates": 4, **keys}


@pytest.mark.parametrize("name", NAMES)
def test_chosen_items_are_no_training_positives(tmp_path, name):
    loader, model, _, _ = build(make_config(tmp_path, **keys_of(name)), vectors=True)
    training = TrainingInteractions.from_dataset(loader._dataset)
    positives = set(zip(training.users.tolist(), training.items.tolist(), strict=True))
    inner, chosen = model.selector.select, []
    model.selector.select = lambda inputs: chosen.append((inputs.users, inner(inputs))) or chosen[-1][1]
    for epoch in range(2):
        model.start_epoch(epoch)
        for batch in loader:
            parts = dict(zip(model.loss_part_names, model.calculate_loss(batch), strict=True))
            assert all(torch.isfinite(part) for part in parts.values())
    pairs = {pair for users, found in chosen for pair in zip(users.tolist(), found.items.tolist(), strict=True)}
    assert len(pairs) > 100
    assert not pairs & positives
    assert all(item > 0 for _, item in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_the_backbone_starts_as_ever(tmp_path, name):
    reference = build(make_config(tmp_path, **keys_of("uniform")))[1]
    config = make_config(tmp_path, **keys_of(name))
    loader, model, _, _ = build(config, vectors=True)
    for key, parameter in reference.named_parameters():
        assert torch.equal(parameter, model.get_parameter(key)), key
    trainer = HNLMTrainer(config, model)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    sum(model.calculate_loss(next(iter(loader)))).backward()
    trainer.optimizer.step()
    for key, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_block_dataset_is_learned(tmp_path, name):
    held_out = write_blocks(tmp_path)
    split = {"split": {"RS": [1.0, 0.0, 0.0]}, "mode": "full"}
    config = make_config(tmp_path, eval_args=split, epochs=30, **keys_of(name, num_candidates=2))
    loader, model, _, _ = build(config, vectors=True)
    HNLMTrainer(config, model).fit(loader, saved=False, verbose=False)
    model.eval()
    dataset = loader._dataset
    user_all, item_all = model.propagate_for_scoring()
    scores = user_all @ item_all.t()
    scores[:, 0] = -torch.inf
    scores[dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]] = -torch.inf
    first = dataset.id2token("item_id", scores[1:].argmax(1).numpy())
    expected = [held_out[user] for user in dataset.id2token("user_id", range(1, model.n_users))]
    hits = sum(found == wanted for found, wanted in zip(first, expected, strict=True))
    assert hits >= 0.9 * len(expected), hits


@pytest.mark.parametrize("name", NAMES)
def test_resumed_training_equals_uninterrupted_training(tmp_path, name):
    losses = {}
    for kind in ("whole", "first part", "rest"):
        epochs = 2 if kind == "first part" else 4
        resume = str(tmp_path / "saved" / "first part.last.pth") if kind == "rest" else None
        config = make_config(tmp_path, **keys_of(name, epochs=epochs, resume=resume, dens_warmup_epochs=3))
        config["run_id"] = kind
        config.to_saved = dict
        loader, model, valid, _ = build(config, vectors=True)
        trainer = safe_trainer(HNLMTrainer)(config, model)
        trainer.fit(loader, valid, verbose=False)
        losses[kind] = trainer.train_loss_dict
    assert losses["rest"] == losses["whole"]
    assert len(losses["whole"]) == 4
