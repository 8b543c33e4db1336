import dataclasses

import numpy as np
import pytest
import torch
from model_kit import NO_SEMANTICS, PLAIN, build, make_config, prepare, random_vectors, write_interactions, write_random

from recbole_hnlm.data.dataloader import HNLMTrainDataLoader, build_train_loader
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.utils.errors import ArtifactError, ConfigError


@pytest.fixture(autouse=True)
def data(tmp_path):
    write_random(tmp_path)


def epoch(loader):
    return [{name: batch[name].clone() for name in batch.columns} for batch in loader]


def same(left, right):
    return all(torch.equal(a[name], b[name]) for a, b in zip(left, right, strict=True) for name in a)


@pytest.mark.parametrize("k", [2, 9])
def test_batches_hold_train_batch_size_positives_whatever_k(tmp_path, k):
    loader, _, _, _ = build(make_config(tmp_path, **NO_SEMANTICS, num_candidates=k))
    batches = epoch(loader)
    assert [len(b["user_id"]) for b in batches] == [64, 64, 64, 48]
    assert all(b["neg_item_id"].shape == (len(b["user_id"]), k) for b in batches)
    assert epoch(build(make_config(tmp_path, **PLAIN))[0])[0]["neg_item_id"].shape == (64,)


def test_order_and_negatives_are_recboles_when_its_sampler_is_injected(tmp_path):
    config = make_config(tmp_path, **PLAIN)
    theirs, _, _ = prepare(config)
    ours = HNLMTrainDataLoader(config, theirs._dataset, theirs._sampler, shuffle=True)
    for _ in range(2):
        np.random.seed(1)  # noqa: NPY002 - RecBole's sampler draws from numpy's global state
        reference = epoch(theirs)
        np.random.seed(1)  # noqa: NPY002
        assert same(reference, epoch(ours))


def test_negatives_are_no_positives_and_shuffles_differ_between_epochs(tmp_path):
    loader, _, _, _ = build(make_config(tmp_path, **NO_SEMANTICS))
    training = TrainingInteractions.from_dataset(loader._dataset)
    positives = set(zip(training.users.tolist(), training.items.tolist(), strict=True))
    first, second = epoch(loader), epoch(loader)
    for batches in (first, second):
        pairs = [(u, i) for b in batches for u, i in zip(b["user_id"].tolist(), b["item_id"].tolist(), strict=True)]
        assert sorted(pairs) == sorted(positives)
        drawn = {
            (u, j)
            for b in batches
            for u, row in zip(b["user_id"].tolist(), b["neg_item_id"].tolist(), strict=True)
            for j in row
        }
        assert not drawn & positives
    assert not same(first, second)


@pytest.mark.parametrize("setting", ["random split", "filtered", "benchmark"])
def test_rows_stay_with_their_pair(tmp_path, setting):
    keys = {}
    if setting == "filtered":
        rng = np.random.default_rng(1)
        write_interactions(tmp_path, [(u, i) for u in range(40) for i in rng.choice(30, 3 + u % 9, replace=False)])
        keys = {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[3,inf)"}
    if setting == "benchmark":
        lines = (tmp_path / "tiny" / "tiny.inter").read_text().splitlines()
        for part, name in enumerate(("train", "valid", "test")):
            chosen = [
                line
                for place, line in enumerate(lines[1:])
                if (part == 0) == (place % 8 > 1) and (not part or place % 8 == part - 1)
            ]
            (tmp_path / "tiny" / f"tiny.{name}.inter").write_text("\n".join([lines[0], *chosen]) + "\n")
        keys = {"benchmark_filename": ["train", "valid", "test"]}
    config = make_config(tmp_path, **keys)
    train, _, _ = prepare(config)
    vectors = random_vectors(train._dataset)
    training = TrainingInteractions.from_dataset(train._dataset)
    # The store holds each pair's own ids, in an order that has nothing to do with the split's.
    order = np.random.default_rng(2).permutation(len(training))
    store = np.stack([training.users, training.items], 1)[order].astype(np.float16)
    rows = np.argsort(order)
    rows[::5] = -1
    train._dataset.semantic_vectors = dataclasses.replace(vectors, pair_vectors=store, pair_rows=rows)
    loader = build_train_loader(config, train)
    seen = 0
    for _ in range(2):
        for batch in epoch(loader):
            has = batch["semantic_row"] >= 0
            found = store[batch["semantic_row"][has].numpy()]
            assert np.array_equal(found, torch.stack([batch["user_id"], batch["item_id"]], 1)[has].numpy())
            seen += int(has.sum())
    assert seen == 2 * int((rows >= 0).sum()) > 0


def test_vectors_of_another_split_are_refused(tmp_path):
    config = make_config(tmp_path)
    train, _, _ = prepare(config)
    vectors = random_vectors(train._dataset)
    train._dataset.semantic_vectors = dataclasses.replace(vectors, pair_rows=vectors.pair_rows[:-1])
    with pytest.raises(ArtifactError, match="describe 239 training interactions, expected 240"):
        build_train_loader(config, train)
    train._dataset.semantic_vectors = dataclasses.replace(vectors, pair_vectors=vectors.pair_vectors[:9])
    with pytest.raises(ArtifactError, match=r"rows 0\.\.239, expected -1\.\.8"):
        build_train_loader(config, train)


@pytest.mark.parametrize("args", [{"distribution": "popularity"}, {"sample_num": 4}, {"dynamic": True, "candidate_num": 3}])
def test_recboles_own_negative_keys_are_not_ignored(tmp_path, args):
    config = make_config(tmp_path, **PLAIN)
    train, _, _ = prepare(config)
    config["train_neg_sample_args"] = dict(config["train_neg_sample_args"]) | args
    with pytest.raises(ConfigError, match="choose negatives with negative_sampler and num_candidates"):
        build_train_loader(config, train)


def test_state_resumes_after_an_epoch(tmp_path):
    config = make_config(tmp_path, **NO_SEMANTICS)
    loader, _, _, _ = build(config)
    first = epoch(loader)
    state = loader.state_dict()
    second = epoch(loader)
    resumed, _, _, _ = build(make_config(tmp_path, **NO_SEMANTICS))
    assert same(epoch(resumed), first)
    resumed, _, _, _ = build(make_config(tmp_path, **NO_SEMANTICS))
    resumed.load_state_dict(state)
    assert same(epoch(resumed), second)


def test_workers_draw_different_candidates_in_each_epoch_and_worker(tmp_path):
    def run():
        loader, _, _, _ = build(make_config(tmp_path, **NO_SEMANTICS, worker=2, train_batch_size=128, shuffle=False))
        return epoch(loader), epoch(loader)

    first, second = run()
    assert torch.equal(first[0]["user_id"], second[0]["user_id"])
    assert not torch.equal(first[0]["neg_item_id"], second[0]["neg_item_id"])
    users = first[0]["user_id"][:112]
    assert not torch.equal(first[0]["neg_item_id"][:112], first[1]["neg_item_id"])
    assert len(users) == len(first[1]["user_id"])
    again = run()
    assert same(first, again[0])
    assert same(second, again[1])
