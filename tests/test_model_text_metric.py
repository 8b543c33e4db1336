"""The learned metric of texts: its loss by hand, its pairs, what it learns, and that a checkpoint keeps it."""

import math

import numpy as np
import pytest
import torch
from model_kit import PLAIN, build, fuse_scores, make_config, write_random
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import EASE

from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model import text_metric, text_scorer
from recbole_hnlm.model.text_metric import TextMetric, draw_pairs, learn_metric, mapped, pair_loss
from recbole_hnlm.trainer.checkpoint import decode, encode
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.pairs import pair_matrix


def training_of(users, items, n_users=9, n_items=41):
    return TrainingInteractions(np.arange(n_users).astype(str), np.arange(n_items).astype(str), users, items)


def test_the_loss_by_hand():
    # Scores / t: [[2, 0, 2], [0, 2, 0], [1, 1, 1]]; the third pair's k is the first's, so that neither is the other's negative.
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    second = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = pair_loss(first, second, torch.tensor([1, 2, 3]), torch.tensor([4, 5, 4]), 0.5)
    apart = math.log(1 + math.exp(-2))
    assert found.item() == pytest.approx((apart + math.log(1 + 2 * math.exp(-2)) + math.log(2)) / 3)
    # An item is no negative of itself: were 5 the first pair's i, no negative would be left to it.
    found = pair_loss(first, second, torch.tensor([5, 2, 3]), torch.tensor([4, 5, 4]), 0.5)
    assert found.item() == pytest.approx((math.log(1 + 2 * math.exp(-2)) + math.log(2)) / 3)


def test_the_gradients():
    rng = torch.Generator().manual_seed(0)
    units = torch.randn(2, 5, 3, generator=rng, dtype=torch.float64)
    weight = torch.randn(3, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, generator=rng, dtype=torch.float64, requires_grad=True)
    items = torch.tensor([[1, 2, 3, 4, 1], [5, 1, 6, 7, 5]])
    assert torch.autograd.gradcheck(
        lambda w, b: pair_loss(mapped(units[0], w, b), mapped(units[1], w, b), *items, 0.3), (weight, bias)
    )


def test_pairs_are_of_one_user_and_drawn_uniformly():
    # User 1 has three items, user 2 one, user 3 two; user 1's item 4 counts once.
    history = pair_matrix(np.array([1, 1, 1, 1, 2, 3, 3]), np.array([4, 5, 6, 4, 7, 8, 9]), (4, 10))
    rng, drawn = np.random.default_rng(0), {}
    for _ in range(600):
        first, second = draw_pairs(history, rng)
        assert first.tolist() == [4, 5, 6, 8, 9]
        for pair in zip(first.tolist(), second.tolist(), strict=True):
            drawn[pair] = drawn.get(pair, 0) + 1
    assert set(drawn) == {(4, 5), (4, 6), (5, 4), (5, 6), (6, 4), (6, 5), (8, 9), (9, 8)}
    assert drawn[8, 9] == 600
    assert all(240 < drawn[pair] < 360 for pair in ((4, 5), (5, 4), (6, 5)))


def telling(seed=0):
    """Items of two kinds, which a small part of their text tells, each user has one kind."""
    rng = np.random.default_rng(seed)
    kind = np.arange(41) % 2
    vectors = np.concatenate([0.3 * (2 * kind[:, None] - 1), rng.normal(size=(41, 5))], axis=1)
    units = torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)
    users = np.repeat(np.arange(1, 9), 10)
    items = np.concatenate([rng.choice(np.flatnonzero(kind == user % 2)[1:], 10, replace=False) for user in range(1, 9)])
    return units, torch.arange(41) > 0, training_of(users, items), kind


def margin(units, kind):
    """How much nearer items of one kind are than items of two."""
    cosines = (units @ units.t())[1:, 1:]
    same = torch.from_numpy(kind[1:, None] == kind[None, 1:])
    return float(cosines[same].mean() - cosines[~same].mean())


def test_it_learns_what_tells_users_apart(monkeypatch):
    monkeypatch.setattr(text_metric, "LEARNING_RATE", 0.1)
    units, known, training, kind = telling()
    state = torch.get_rng_state()
    metric = learn_metric(units, known, training, 3, epochs=100)
    assert torch.equal(torch.get_rng_state(), state)
    assert margin(units, kind) < 0.1
    assert margin(mapped(units, metric.weight, metric.bias), kind) > 0.4
    again, other = (learn_metric(units, known, training, seed, epochs=1) for seed in (3, 4))
    assert torch.equal(learn_metric(units, known, training, 3, epochs=1).weight, again.weight)
    assert not torch.equal(other.weight, again.weight)


def test_what_is_held_out_never_pairs(tmp_path, monkeypatch):
    write_random(tmp_path)
    pairs, inner = set(), text_metric.pair_loss

    def spy(first, second, first_items, second_items, temperature):
        pairs.update(zip(first_items.tolist(), second_items.tolist(), strict=True))
        return inner(first, second, first_items, second_items, temperature)

    monkeypatch.setattr(text_metric, "pair_loss", spy)
    config = make_config(tmp_path, text_score="kernel", text_metric="learned", **PLAIN)
    _, model, valid, test = build(config, True)
    model.learn_text_metric()
    training = model.text_scorer._training
    together = {(i, k) for user in range(1, 41) for i in training.history_of(user) for k in training.history_of(user) if i != k}
    held_out = {
        (int(item), int(own))
        for split in (valid, test)
        for user, item in zip(*(split._dataset.inter_feat[field].tolist() for field in ("user_id", "item_id")), strict=True)
        for own in training.history_of(user)
    }
    assert pairs <= together
    # Most of the pairs that users have in training were drawn, and none that only held-out items make.
    assert len(pairs) > 0.8 * len(together)
    assert held_out - together
    assert not pairs & (held_out - together)


@pytest.mark.parametrize("form", ["mean", "kernel"])
def test_scores_read_what_is_mapped(form):
    units, known, training, _ = telling()
    scorer, raw = (
        text_scorer.TextScorer(units.numpy(), known.numpy(), training, form, 0.5, torch.device("cpu"), metric_seed=seed)
        for seed in (1, None)
    )
    half = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    users = torch.tensor([1, 2])
    scorer.metric = TextMetric(half, torch.zeros(6), units[known].mean(dim=0))
    found = scorer.scores(users)
    plain = text_scorer.TextScorer((units @ half).numpy(), known.numpy(), training, form, 0.5, torch.device("cpu"))
    if form == "mean":  # the mean is one of unit vectors
        plain._vectors = plain.units.numpy()
    assert torch.allclose(found, plain.scores(users), atol=1e-5)
    assert not torch.allclose(found, raw.scores(users), atol=1e-2)
    # Another metric takes effect, and one of other texts does not count.
    scorer.metric = TextMetric(torch.eye(6), torch.zeros(6), units[known].mean(dim=0))
    assert torch.allclose(scorer.units, raw.units, atol=1e-6)
    scorer.metric = TextMetric(half, torch.zeros(6), units[known].mean(dim=0).flip(0))
    assert torch.equal(scorer.units, mapped_by(learn_metric(raw.units, known, training, 1), raw.units) * known[:, None])


def mapped_by(metric, units):
    return mapped(units, metric.weight, metric.bias)


@pytest.mark.parametrize("model", [None, EASE])
def test_a_checkpoint_scores_the_same_without_learning(tmp_path, monkeypatch, model):
    write_random(tmp_path)
    keys = {**PLAIN, "text_score": "kernel", "text_score_weight": 0.7, "text_metric": "learned"}
    if model is not None:
        keys |= {"model": model, "reg_weight": 5.0}
    trained = build(make_config(tmp_path, **keys), True)[1].eval()
    trained.learn_text_metric()
    users = Interaction({"user_id": torch.tensor([3, 9])})
    expected = trained.full_sort_predict(users)
    assert torch.allclose(
        expected.view(2, -1), fuse_scores(trained.model_scores(users), trained.text_scorer.scores(users["user_id"]), 0.7)
    )
    kept = decode(encode(trained.other_parameter()))
    monkeypatch.setattr(text_scorer, "learn_metric", None)
    loaded = build(make_config(tmp_path, **keys), True)[1].eval()
    loaded.load_state_dict(trained.state_dict())
    loaded.load_other_parameter(kept)
    loaded.learn_text_metric()
    assert torch.equal(loaded.full_sort_predict(users), expected)
    # The same file without the metric is the raw kernel.
    plain = build(make_config(tmp_path, **{**keys, "text_metric": "none"}), True)[1].eval()
    plain.load_state_dict(trained.state_dict())
    plain.load_other_parameter(kept)
    raw = fuse_scores(trained.model_scores(users), plain.text_scorer.scores(users["user_id"]), 0.7)
    assert torch.allclose(plain.full_sort_predict(users).view(2, -1), raw)
    assert not torch.allclose(plain.full_sort_predict(users), expected, atol=1e-3)


def test_without_pairs_it_says_so():
    units, known, training, _ = telling()
    alone = training_of(np.arange(1, 9), np.arange(1, 9))
    with pytest.raises(ConfigError, match=r"two training items that have text.*--text_metric=none"):
        learn_metric(units, known, alone, 0)
    known[:] = False
    with pytest.raises(ConfigError, match="two training items that have text"):
        learn_metric(units, known, training, 0)
