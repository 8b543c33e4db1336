"""Losses of one positive against shared negatives: by hand, against plain autograd, at their limits, and in a model."""

import math

import numpy as np
import pytest
import torch
from model_kit import NO_SEMANTICS, PLAIN, build, make_config, write_random

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune.teacher_training import _vectors_of
from recbole_hnlm.model.set_losses import (
    Excluded,
    bilateral_softmax_loss,
    log_sum_exp_shared,
    log_sum_psl_shared,
    mean_exp_of_positives,
    pairwise_softmax_loss,
    softmax_at_k_loss,
    softmax_loss,
    top_k_weight,
)
from recbole_hnlm.model.shared_negatives import SharedNegatives, top_k_thresholds
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

SURROGATES = ("relu", "tanh", "atan")
LOSSES = ("softmax", "bsl", "psl", "sl_at_k")


def excluding(*rows):
    """Leave out the listed columns of each row."""
    columns = torch.tensor([column for row in rows for column in row], dtype=torch.int64)
    return Excluded(columns, torch.tensor([0, *np.cumsum([len(row) for row in rows])]))


def random_case(rows=600, width=70, size=8, dtype=torch.float64, seed=0):
    """Make more rows than are computed together, of length 1, with left-out pairs; the last row loses all its negatives."""
    draw = torch.Generator().manual_seed(seed)
    users, negatives, positives = (
        torch.nn.functional.normalize(torch.randn(count, size, generator=draw, dtype=torch.float64), dim=1)
        for count in (rows, width, rows)
    )
    left_out = torch.rand(rows, width, generator=draw) < 0.05
    left_out[-1] = True
    excluded = excluding(*(row.nonzero().squeeze(1).tolist() for row in left_out))
    leaves = [leaf.to(dtype, copy=True).requires_grad_() for leaf in (users, negatives, (users * positives).sum(dim=1))]
    return *leaves, excluded, left_out


def plain_log_sums(users, negatives, positive_scores, left_out, temperature, surrogate=None):
    """The same numbers by autograd alone."""
    scores = users @ negatives.t()
    if surrogate is None:
        return torch.logsumexp((scores / temperature).masked_fill(left_out, -math.inf), dim=1)
    half = (scores - positive_scores[:, None]) / 2
    reach = {"relu": half, "tanh": half.tanh(), "atan": half.atan()}[surrogate] + 1
    return reach.clamp_min(0).pow(1 / temperature).masked_fill(left_out, 0.0).sum(dim=1).log()


# --- by hand -----------------------------------------------------------------------------------------------------------------


def test_the_sum_counts_an_item_as_often_as_drawn_and_leaves_out_what_it_should():
    users = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    negatives = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = log_sum_exp_shared(users, negatives, excluding([], [1, 2]), 0.5)
    assert found.tolist() == pytest.approx([math.log(2 * math.e**2 + 1), 2.0])


def test_softmax_by_hand():
    # e^(c/t): 4 for the positive, 6 for the negatives, 2 for the hard one, which weighs 3: -log(4 / (4 + 6 + 3 * 2)) = log 4.
    sums, positive, hard = (torch.tensor([math.log(value)]) for value in (6.0, 4.0, 2.0))
    assert softmax_loss(sums, positive / 2, hard / 2, temperature=0.5, hard_weight=3.0).item() == pytest.approx(math.log(4))
    for scores, weight in ((None, 3.0), (hard / 2, 0.0)):
        value = softmax_loss(sums, positive / 2, scores, temperature=0.5, hard_weight=weight)
        assert value.item() == pytest.approx(math.log(2.5))


def test_bilateral_softmax_by_hand():
    # User 1 has positives of e^(c/t1) 2 and 4, mean 3; user 2 one of 5. Negatives: e^(c/t2) sum to 9, t2 / t1 = 1/2: root 3.
    positives = torch.tensor([2.0, 5.0, 4.0]).log() * 2
    terms = mean_exp_of_positives(torch.tensor([1, 2, 1]), positives, 2.0)
    assert terms.exp().tolist() == pytest.approx([3.0, 5.0, 3.0])
    sums = torch.full((3,), math.log(9.0))
    losses = bilateral_softmax_loss(sums, terms, None, temperatures=(2.0, 1.0), hard_weight=1.0)
    assert losses.tolist() == pytest.approx([math.log(3 / 3), math.log(3 / 5), math.log(3 / 3)], abs=1e-6)
    # A hard negative of e^(c/t2) = 7 and weight 1 makes the sum 16.
    hard = torch.full((3,), math.log(7.0))
    losses = bilateral_softmax_loss(sums, terms, hard, temperatures=(2.0, 1.0), hard_weight=1.0)
    assert losses.tolist() == pytest.approx([math.log(4 / 3), math.log(4 / 5), math.log(4 / 3)], abs=1e-6)


def test_bilateral_softmax_prefers_the_better_of_two_positives():
    # d/dc of log mean exp is a softmax: shares 1/3 and 2/3 of e^(c/t) = 1 and 2, for each of the user's two rows.
    scores = torch.tensor([0.0, math.log(2.0)], requires_grad=True)
    mean_exp_of_positives(torch.tensor([5, 5]), scores, 1.0).sum().backward()
    assert scores.grad.tolist() == pytest.approx([2 / 3, 4 / 3])


@pytest.mark.parametrize(("surrogate", "reach"), [("relu", 0.5), ("tanh", 1 - math.tanh(0.5)), ("atan", 1 - math.atan(0.5))])
def test_pairwise_softmax_by_hand(surrogate, reach):
    # c_i = 1 and two negatives of c = 0: d/2 = -1/2, and 1/t = 2.
    users, negatives = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    positive = torch.tensor([1.0])
    sums = log_sum_psl_shared(users, negatives, positive, excluding([]), temperature=0.5, surrogate=surrogate)
    assert sums.item() == pytest.approx(math.log(2 * reach**2), abs=1e-6)
    # The chosen negative ties with the positive: s(0) = 1, times 3.
    loss = pairwise_softmax_loss(sums, positive, positive, temperature=0.5, surrogate=surrogate, hard_weight=3.0)
    assert loss.item() == pytest.approx(math.log(2 * reach**2 + 3), abs=1e-6)


def test_the_farthest_negative_of_psl_adds_nothing_and_takes_no_gradient():
    users, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([1.0], requires_grad=True)
    negatives = torch.tensor([[-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    sums = log_sum_psl_shared(users, negatives, positive, excluding([]), temperature=0.5, surrogate="relu")
    far = torch.tensor([-1.0], requires_grad=True)
    loss = pairwise_softmax_loss(sums, positive, far, temperature=0.5, surrogate="relu", hard_weight=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(0.25))
    assert negatives.grad[0].tolist() == [0.0, 0.0]
    assert far.grad.item() == 0.0
    # d/dc_i of log ((1 + (c_j - c_i)/2)^2) = -1 / s = -2.
    assert positive.grad.item() == pytest.approx(-2.0)


def test_the_weight_of_sl_at_k_by_hand():
    scores = torch.tensor([0.3, 0.3 + 2 * math.log(3.0), -0.2])
    thresholds = torch.tensor([0.3, 0.3, -math.inf])
    assert top_k_weight(scores, thresholds, 2.0).tolist() == pytest.approx([0.5, 0.75, 1.0])
    # A small temperature asks whether the positive is among the first K.
    assert top_k_weight(torch.tensor([0.31, 0.29]), torch.tensor([0.3, 0.3]), 1e-4).tolist() == pytest.approx([1.0, 0.0])


def test_sl_at_k_by_hand_in_value_and_gradient():
    # w (log S - c/t) with w = 1/2, S = e^3, t = 1/2, c = 1: 1/2 (3 - 2). Its derivative: w' l - w/t, w' = w (1 - w) / t_w.
    positive = torch.tensor([1.0], requires_grad=True)
    weights = top_k_weight(positive, torch.tensor([1.0]), 2.0)
    loss = softmax_at_k_loss(torch.tensor([3.0]), positive, None, weights, temperature=0.5, hard_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert positive.grad.item() == pytest.approx(0.25 / 2 * 1.0 - 0.5 / 0.5)


# --- the derivative of the sum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surrogate", [None, *SURROGATES])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-6)])
def test_the_sum_and_its_gradients_equal_plain_autograd(surrogate, dtype, tolerance):
    users, negatives, positives, excluded, left_out = random_case(dtype=dtype)
    leaves = (users, negatives) if surrogate is None else (users, negatives, positives)
    if surrogate is None:
        own = log_sum_exp_shared(users, negatives, excluded, 0.15)
    else:
        own = log_sum_psl_shared(users, negatives, positives, excluded, temperature=0.15, surrogate=surrogate)
    assert own[-1] == -math.inf
    reference_leaves = [leaf.detach().double().requires_grad_() for leaf in (users, negatives, positives)]
    reference = plain_log_sums(*reference_leaves, left_out, 0.15, surrogate)
    assert torch.allclose(own[:-1].double(), reference[:-1], atol=0, rtol=max(tolerance, 1e-11))
    # Rows weigh differently, as in SL@K; a mean over B, as losses take.
    factors = torch.linspace(0.1, 2.0, len(own) - 1, dtype=dtype) / len(own)
    found = torch.autograd.grad((own[:-1] * factors).sum(), leaves)
    expected = torch.autograd.grad((reference[:-1] * factors.double()).sum(), reference_leaves[: len(leaves)])
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-4
        assert torch.allclose(one.double(), other, atol=tolerance, rtol=0)


@pytest.mark.parametrize("surrogate", [None, *SURROGATES])
def test_gradcheck(surrogate):
    users, negatives, positives, excluded, _ = random_case(rows=7, width=5, size=3)
    leave_one = Excluded(excluded.columns[:-5], excluded.starts.clamp_max(len(excluded.columns) - 5))
    if surrogate is None:
        assert torch.autograd.gradcheck(lambda u, v: log_sum_exp_shared(u, v, leave_one, 0.3), (users, negatives))
        return

    def of(u, v, c):
        return log_sum_psl_shared(u, v, c, leave_one, temperature=0.3, surrogate=surrogate)

    assert torch.autograd.gradcheck(of, (users, negatives, positives))


def test_the_gradient_can_be_taken_twice_from_one_graph():
    users, negatives, _, _, _ = random_case(rows=5, width=4)
    total = log_sum_exp_shared(users, negatives, Excluded.none(5), 0.2).sum()
    first = torch.autograd.grad(total, (users, negatives), retain_graph=True)
    second = torch.autograd.grad(total, (users, negatives))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def all_losses(users, negatives, positives, excluded, hard=None, weight=1.0, temperature=0.15):
    """Return every loss of each row, by name."""
    sums = log_sum_exp_shared(users, negatives, excluded, temperature)
    bent = log_sum_psl_shared(users, negatives, positives, excluded, temperature=temperature, surrogate="relu")
    terms = mean_exp_of_positives(torch.arange(len(users)), positives, temperature)
    both = (temperature, temperature)
    weights = top_k_weight(positives, torch.zeros_like(positives), 1.0)
    return {
        "softmax": softmax_loss(sums, positives, hard, temperature=temperature, hard_weight=weight),
        "bsl": bilateral_softmax_loss(sums, terms, hard, temperatures=both, hard_weight=weight),
        "psl": pairwise_softmax_loss(bent, positives, hard, temperature=temperature, surrogate="relu", hard_weight=weight),
        "sl_at_k": softmax_at_k_loss(sums, positives, hard, weights, temperature=temperature, hard_weight=weight),
    }


@pytest.mark.parametrize("name", LOSSES)
def test_left_out_items_take_no_gradient_and_a_row_without_negatives_has_no_loss(name):
    users, negatives, positives, _, _ = random_case(rows=3, width=4)
    losses = all_losses(users, negatives, positives, excluding([2], [2, 0], [0, 1, 2, 3]))[name]
    losses.sum().backward()
    assert losses[2].item() == 0.0
    assert losses[:2].abs().min() > 0.01
    assert not negatives.grad[2].any()
    assert not users.grad[2].any()
    assert negatives.grad[[0, 1, 3]].abs().min() > 0
    assert positives.grad[2].item() == 0.0
    assert torch.isfinite(positives.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_hard_negative_is_one_more_term_of_the_sum(name):
    # Of weight 1 it counts as one more drawn item, of weight 2 as two.
    users, negatives, positives, _, _ = random_case(rows=1, width=4)
    hard = (users @ negatives[3]).detach()
    for weight, copies in ((1.0, [0, 1, 2, 3]), (2.0, [0, 1, 2, 3, 3])):
        expected = all_losses(users, negatives[copies], positives, Excluded.none(1))[name]
        found = all_losses(users, negatives[:3], positives, Excluded.none(1), hard, weight)[name]
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_limits_of_the_temperature():
    users, negatives, positives, excluded, left_out = random_case()
    counts = (~left_out).sum(dim=1)[:-1]
    assert torch.allclose(log_sum_exp_shared(users, negatives, excluded, 1e6)[:-1], counts.double().log(), atol=1e-5)
    hardest = (users @ negatives.t()).masked_fill(left_out, -math.inf).amax(dim=1)[:-1]
    assert torch.allclose(1e-4 * log_sum_exp_shared(users, negatives, excluded, 1e-4)[:-1], hardest, atol=1e-3)
    # PSL and SL agree for near scores: s(x) = 1 + x is exp(x) to first order, and SL's temperature is twice PSL's.
    near = (0.01 * users.detach(), negatives.detach(), 0.01 * positives.detach(), excluded)
    bent = log_sum_psl_shared(*near, temperature=0.1, surrogate="relu")
    straight = log_sum_exp_shared(near[0], near[1], excluded, 0.2) - near[2] / 0.2
    assert torch.allclose(bent[:-1], straight[:-1], atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_finite_at_extreme_scores(name):
    users = torch.tensor([[1e4, 0.0], [-1e4, 0.0]], requires_grad=True)
    negatives = torch.tensor([[1e2, 0.0], [-1e2, 0.0]], requires_grad=True)
    positives = torch.tensor([-1e6, 1e6], requires_grad=True)
    loss = all_losses(users, negatives, positives, Excluded.none(2), hard=torch.tensor([1e6, -1e6]), temperature=0.01)[name]
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (users, negatives, positives))


# --- shared negatives --------------------------------------------------------------------------------------------------------


def training_of(pairs, n_users, n_items):
    users, items = np.array(pairs, dtype=np.int64).T
    names = [np.arange(count).astype(str) for count in (n_users, n_items)]
    return TrainingInteractions(*names, users, items)


def test_own_items_are_found_wherever_they_were_drawn():
    draw = np.random.default_rng(0)
    pairs = sorted({(int(u), int(i)) for u, i in zip(draw.integers(1, 9, 60), draw.integers(1, 30, 60), strict=True)})
    shared = SharedNegatives(training_of([*pairs, pairs[0]], 9, 30))
    users, items = torch.from_numpy(draw.integers(0, 9, 40)), torch.from_numpy(draw.integers(1, 30, 50))
    excluded = shared.of_own(users, items)
    assert len(set(items.tolist())) < len(items)
    found = torch.zeros(len(users) * len(items), dtype=torch.bool)
    found[excluded.flat(len(items))] = True
    expected = [(user, item) in set(pairs) for user in users.tolist() for item in items.tolist()]
    assert found.tolist() == expected
    assert len(excluded.columns) == sum(expected) > 0


def test_draws_cover_all_items_but_the_padding_and_follow_the_generator():
    shared = SharedNegatives(training_of([(1, 1)], 2, 6))
    drawn = shared.draw(500, torch.Generator().manual_seed(3))
    assert sorted(set(drawn.tolist())) == [1, 2, 3, 4, 5]
    assert torch.equal(drawn, shared.draw(500, torch.Generator().manual_seed(3)))
    assert not torch.equal(drawn, shared.draw(500, torch.Generator().manual_seed(4)))


def test_thresholds_by_hand():
    # Items score as their own number. User 1 owns 5 and 1, and sees 4, 3, 3 (its own 5 is not a negative of its own).
    items = torch.arange(7.0).unsqueeze(1)
    shared = SharedNegatives(training_of([(1, 5), (1, 1), (2, 6)], 3, 7))
    drawn = torch.tensor([5, 4, 3, 3])
    users = torch.ones(3, 1)
    by_k = {k: top_k_thresholds(users, items, shared, drawn, k).tolist() for k in (1, 2, 4, 5, 6)}
    assert [by_k[k][1] for k in (1, 2, 4, 5, 6)] == [5.0, 4.0, 3.0, 1.0, -math.inf]
    assert [by_k[k][2] for k in (1, 2, 4, 5, 6)] == [6.0, 5.0, 3.0, 3.0, -math.inf]


# --- in a model --------------------------------------------------------------------------------------------------------------


def rank_of(model, batch):
    return dict(zip(model.loss_part_names, model.calculate_loss(batch), strict=True))["rank"]


@pytest.mark.parametrize("score", ["cosine", "inner"])
def test_the_model_computes_the_softmax_over_items_that_the_user_does_not_have(workdir, score):
    write_random(workdir)
    keys = {"rank_loss": "softmax", "loss_negatives": 40, "loss_score": score, "loss_temperature": 0.4, "loss_hard_weight": 2.0}
    loader, model, *_ = build(make_config(workdir, **PLAIN, **keys))
    model.start_epoch(0)
    batch = next(iter(loader))
    found = rank_of(model, batch)
    draws = torch.Generator().manual_seed(7)
    drawn = torch.randint(1, model.n_items, (40,), generator=draws)
    training = TrainingInteractions.from_dataset(loader._dataset)
    owned = set(zip(training.users.tolist(), training.items.tolist(), strict=True))
    user_all, item_all = model.propagate_for_scoring()
    if score == "cosine":
        user_all, item_all = (torch.nn.functional.normalize(table, dim=1) for table in (user_all, item_all))
    total = 0.0
    for user, positive, chosen in zip(*(batch[name].tolist() for name in ("user_id", "item_id", "neg_item_id")), strict=True):
        terms = {"positive": positive, "chosen": chosen}
        values = {name: math.exp(float(user_all[user] @ item_all[item]) / 0.4) for name, item in terms.items()}
        others = [item for item in drawn.tolist() if (user, item) not in owned]
        rest = sum(math.exp(float(user_all[user] @ item_all[item]) / 0.4) for item in others)
        total += -math.log(values["positive"] / (values["positive"] + 2 * values["chosen"] + rest))
    assert found.item() == pytest.approx(total / len(batch["user_id"]), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mixed_negative_enters_every_loss_unless_its_weight_is_zero(workdir, name):
    write_random(workdir)
    gradients = {}
    for weight in (0.0, 1.0):
        keys = {"rank_loss": name, "loss_negatives": 20, "loss_hard_weight": weight, "mix_weight": 0.5, "contrast_weight": 0.0}
        loader, model, *_ = build(make_config(workdir, **keys, alignment_weight=0.0), vectors=True)
        model.start_epoch(0)
        batch = next(iter(loader))
        rank_of(model, batch).backward()
        gradients[weight] = [parameter.grad for parameter in model.projectors.parameters()]
        assert batch["neg_item_id"].dim() == (2 if weight else 1)
    assert all(gradient is None for gradient in gradients[0.0])
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients[1.0])


def test_thresholds_are_refreshed_every_so_many_epochs_and_kept(workdir):
    write_random(workdir)
    keys = {"rank_loss": "sl_at_k", "loss_negatives": 20, "loss_at_k": 3, "loss_refresh_epochs": 2}
    _, model, *_ = build(make_config(workdir, **NO_SEMANTICS, **keys))
    seen = []
    for epoch in range(4):
        model.start_epoch(epoch)
        seen.append(model.loss_memory["thresholds"].clone())
    assert not seen[0].any()
    assert torch.equal(seen[0], seen[1])
    assert bool((seen[2][1:] != 0).all())
    assert torch.equal(seen[2], seen[3])
    _, other, *_ = build(make_config(workdir, **NO_SEMANTICS, **keys))
    other.load_other_parameter(model.other_parameter())
    assert torch.equal(other.loss_memory["thresholds"], seen[3])
    with pytest.raises(ArtifactError, match=r"thresholds of sl_at_k have shape \(3,\), expected \(\d+,\)"):
        other.loss_memory = {"thresholds": torch.zeros(3)}


@pytest.mark.parametrize(
    ("keys", "cosine"),
    [
        ({"rank_loss": "softmax"}, True),
        ({"rank_loss": "softmax", "loss_score": "inner"}, False),
        ({"rank_loss": "softmax", "score": "inner"}, False),
        ({"rank_loss": "bpr"}, False),
        ({"rank_loss": "bpr", "score": "cosine"}, True),
    ],
)
def test_items_are_ranked_by_the_score_that_the_loss_reads_unless_a_key_says_otherwise(workdir, keys, cosine):
    write_random(workdir)
    _, model, *_ = build(make_config(workdir, **PLAIN, **keys))
    model.eval()
    users = torch.arange(1, 9)
    with torch.no_grad():
        user_all, item_all = model.propagate()
    expected = user_all[users] @ item_all.t()
    if cosine:
        lengths = user_all[users].norm(dim=1)[:, None] * item_all.norm(dim=1)
        expected = torch.where(lengths > 0, expected / lengths, 0.0)
    found = model.full_sort_predict({"user_id": users}).view(8, -1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(
        model.predict({"user_id": users, "item_id": users + 2}), expected[torch.arange(8), users + 2], atol=1e-6
    )


def test_a_teacher_that_ranks_by_cosine_gives_the_vectors_that_it_ranks_with(workdir):
    write_random(workdir)
    config = make_config(workdir, **PLAIN, rank_loss="softmax")
    _, model, *_ = build(config)
    users, items = _vectors_of(model, config)
    assert torch.allclose(users[1:].norm(dim=1), torch.ones(len(users) - 1))
    assert torch.allclose(items[1:].norm(dim=1), torch.ones(len(items) - 1))


def test_samplers_that_remember_outputs_remember_them_unscaled(workdir):
    write_random(workdir)
    keys = {"rank_loss": "softmax", "negative_sampler": "srns", "num_candidates": 4}
    _, model, *_ = build(make_config(workdir, **NO_SEMANTICS, **keys))
    model.start_epoch(0)
    with torch.no_grad():
        assert torch.equal(model.negative_memory["users"][0], model.propagate()[0])


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ConfigError, match="loss_at_k is 20, expected at most loss_negatives, 8"):
        validate_settings({"rank_loss": "sl_at_k", "loss_negatives": 8})
    with pytest.raises(ConfigError, match="count_false_negatives counts the negatives that negative_sampler chooses"):
        validate_settings({"rank_loss": "softmax", "loss_hard_weight": 0, "count_false_negatives": True})
    without = validate_settings({"rank_loss": "softmax", "loss_hard_weight": 0, "negative_sampler": "semantic_guard"})
    assert without.sampler_in_use == "uniform"
    assert "negative_sampler semantic_guard" not in without.text_readers
