"""Full ranking by blocks and partial selection gives RecBole's lists, hits and metrics; what it fuses is standardised alike."""

import numpy as np
import pytest
import torch
from recbole.trainer.trainer import Trainer

from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.evaluator import full_ranking
from recbole_hnlm.evaluator.full_ranking import user_blocks
from recbole_hnlm.evaluator.top_items import ItemLists, rank_rows
from recbole_hnlm.model.text_scorer import TextScorer
from recbole_hnlm.testing.data import build, write_random
from recbole_hnlm.trainer import fusion_weights
from recbole_hnlm.trainer.fusion_weights import score_weights
from recbole_hnlm.utils.scores import standardise_items, standardise_rows

# RecBole's trainer writes its tensorboard files into the current folder.
pytestmark = pytest.mark.usefixtures("workdir")

PLAIN = {"negative_route": "none", "alignment_weight": 0.0, "negative_sampler": "uniform"}


def lists_of(rows):
    pointers = np.cumsum([0, *map(len, rows)])
    return ItemLists(pointers.astype(np.int64), np.array([item for row in rows for item in row], dtype=np.int64))


def recboles_lists(scores, histories, positives, k):
    """As RecBole's trainer and collector do it."""
    scores, relevant = scores.clone(), torch.zeros(scores.shape, dtype=torch.int)
    scores[:, 0] = -np.inf
    for row, (history, positive) in enumerate(zip(histories, positives, strict=True)):
        scores[row, history] = -np.inf
        relevant[row, positive] = 1
    items = torch.topk(scores, k, dim=-1)[1]
    return items, torch.cat([relevant.gather(1, items), relevant.sum(dim=1, keepdim=True)], dim=1)


@pytest.mark.parametrize("kind", ["random", "ties", "nan", "infinite", "constant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("n_items", "k"), [(12, 11), (700, 20), (2048, 5), (5000, 20), (5000, 100)])
def test_lists_are_those_of_a_whole_sort(n_items, k, dtype, kind):
    rng = np.random.default_rng(n_items + k)
    scores = torch.from_numpy(rng.standard_normal((9, n_items)))
    if kind == "ties":
        scores = (4 * scores).round()
    elif kind == "nan":
        scores[2, 3] = scores[8, n_items - 1] = torch.nan
    elif kind == "infinite":
        scores[1, 1:5], scores[2, 2:] = torch.inf, -torch.inf
    elif kind == "constant":
        scores[:] = 0.25
    scores = scores.to(dtype)
    histories = [rng.choice(np.arange(1, n_items), size, replace=False) for size in rng.integers(0, n_items // 3, 9)]
    positives = [rng.choice(np.arange(1, n_items), size, replace=False) for size in rng.integers(1, n_items // 3, 9)]
    items, hits = recboles_lists(scores.float() if dtype is torch.bfloat16 else scores, histories, positives, k)
    found = rank_rows(scores, lists_of(histories), lists_of(positives), k)
    assert torch.equal(found[0], items)
    assert torch.equal(found[1], hits)
    assert found[1].dtype == hits.dtype


def trainer_of(folder, model, **keys):
    built = build(folder, model, **keys)
    trainer = built.trainer()
    trainer.eval_collector.data_collect(built.data.train)
    trainer.eval_collector.keep_items()
    if model == "Pop":  # it counts where others learn
        for batch in built.data.train:
            built.model.calculate_loss(batch)
    return trainer, built.data.valid


def collected(trainer, valid, evaluate):
    with torch.no_grad():
        return evaluate(valid), trainer.eval_collector.latest_topk, trainer.eval_collector.latest_items


# Pop scores in float64 and in ties, NeuMF scores pairs alone.
@pytest.mark.parametrize("model", ["HNLMLightGCN", "LightGCN", "EASE", "ItemKNN", "Pop", "NeuMF"])
def test_an_evaluation_is_recboles(tmp_path, monkeypatch, model):
    write_random(tmp_path, 60, 50)
    metrics = ["Recall", "NDCG", "MRR", "Hit", "Precision", "MAP", "ItemCoverage", "GiniIndex"]
    trainer, valid = trainer_of(tmp_path, model, metrics=metrics, topk=[1, 3, 7], metric_decimal_place=14, valid_metric="MRR@3")
    monkeypatch.setattr(full_ranking, "_BLOCK_BYTES", 0)
    monkeypatch.setattr(full_ranking, "_LEAST_USERS", 7)
    ours = collected(trainer, valid, lambda data: trainer.evaluate(data, load_best_model=False))
    theirs = collected(trainer, valid, lambda data: Trainer.evaluate(trainer, data, load_best_model=False))
    assert ours[0] == theirs[0]
    assert ours[0]["recall@7"] > 0
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[2], theirs[2])
    assert ours[1].dtype == theirs[1].dtype


def test_metrics_that_read_more_than_lists_are_recboles(tmp_path):
    write_random(tmp_path)
    trainer, valid = trainer_of(tmp_path, "BPR", metrics=["GAUC", "Recall"], topk=[3], valid_metric="Recall@3")
    with torch.no_grad():
        expected = Trainer.evaluate(trainer, valid, load_best_model=False)
    assert trainer.evaluate(valid, load_best_model=False) == expected
    assert 0 < expected["gauc"] < 1


def test_blocks_hold_every_nth_batch_of_the_loader(tmp_path):
    write_random(tmp_path, 60, 50)
    _, valid = trainer_of(tmp_path, "BPR", eval_batch_size=51 * 7)
    users = [block.interaction["user_id"].tolist() for block in user_blocks(valid, small=False, every=2)]
    assert users == [batch[0]["user_id"].tolist() for batch in valid][::2]
    for block, (_, history, positive_u, positive_i) in zip(user_blocks(valid, small=False), valid, strict=True):
        rows = np.repeat(np.arange(len(block.interaction)), np.diff(block.positives.pointers))
        assert (rows.tolist(), block.positives.items.tolist()) == (positive_u.tolist(), positive_i.tolist())
        assert block.histories.items.tolist() == history[1].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shares", [None, 0.6, 0.0])
def test_compiled_standardising_is_that_of_rows(dtype, shares):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(3.0, 0.5, (20, 1003))).to(dtype)
    scores[4] = 0.1 if dtype is torch.float32 else 0.125
    known = None if shares is None else torch.from_numpy(rng.random(1003) < shares)
    expected = standardise_rows(scores[:, 1:].double(), None if known is None else known[None, 1:])
    found = standardise_items(scores, known)
    assert found.dtype == dtype
    assert torch.allclose(found[:, 1:].double(), expected, atol=2e-6 if dtype is torch.float32 else 1e-12)
    assert not found[:, 0].any()
    assert not found[4].any()
    assert not standardise_items(torch.tensor([[0.0, torch.nan, 1.0]])).any()  # as a row without spread


@pytest.mark.parametrize("form", ["mean", "kernel"])
def test_rows_of_texts_are_kept_only_where_they_take_little(form):
    rng = np.random.default_rng(0)
    tokens = np.arange(600).astype(str)
    training = TrainingInteractions(tokens[:40], tokens, rng.integers(1, 30, 300), rng.integers(1, 600, 300))
    vectors, mask = rng.normal(size=(600, 6)).astype(np.float32), rng.random(600) < 0.9
    keeping, computing = (
        TextScorer(vectors, mask, training, form, 0.2, torch.device("cpu"), rows_bytes=size) for size in (1 << 20, 0)
    )
    for users in (torch.tensor([3, 9, 35, 3]), torch.tensor([4, 9])):
        expected = computing.standardised(users)
        assert torch.allclose(keeping.standardised(users), expected, atol=1e-5)
        added = torch.ones_like(expected)
        keeping.add_to(added, users, 0.5)
        assert torch.allclose(added, 1 + 0.5 * expected, atol=1e-5)
        assert torch.allclose(expected, standardise_items(computing.scores(users), computing.known))
    assert computing._kept_rows is None
    assert keeping._is_kept.sum() == 4
    # The kernel is that of all pairs, though one half of it is copied.
    if form == "kernel":
        assert torch.allclose(keeping._kernel, ((keeping.units @ keeping.units.T - 1) / 0.2).exp(), atol=1e-6)


def test_weights_are_scored_alike_by_blocks_and_by_batches(tmp_path, monkeypatch):
    write_random(tmp_path, 60, 50)
    keys = {"text_score": "kernel", **PLAIN, "eval_batch_size": 51 * 7}
    trainer, valid = trainer_of(tmp_path, "HNLMLightGCN", **keys)
    monkeypatch.setattr(fusion_weights, "_MOST_USERS", 30)
    found = score_weights(trainer, valid, 0)
    monkeypatch.setattr(fusion_weights, "on_one_cpu", lambda config: False)
    assert score_weights(trainer, valid, 0) == found
    assert len(set(found.values())) > 1
