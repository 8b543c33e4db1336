"""Negatives: how hard they are over epochs, and where those of the LLM lie."""

import types

import numpy as np
import pytest
import torch

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.evaluator.hardness import HardnessRecorder, bpr_gradient, hinge_gradient
from recbole_hnlm.evaluator.vectors import COSINE_EDGES, described, histogram, row_cosines
from recbole_hnlm.experiments.analysis.semantic import SampledPairs, semantic_negatives, semantic_shift
from recbole_hnlm.model.building import build_model
from recbole_hnlm.model.losses import bpr_loss, hinge_loss
from recbole_hnlm.quick_start.runner import run


@pytest.mark.parametrize(
    ("gradient", "loss"),
    [
        (bpr_gradient, bpr_loss),
        (lambda differences: hinge_gradient(differences, 0.5), lambda own, other: hinge_loss(own, other, 0.5)),
    ],
)
def test_gradients_are_those_of_the_losses(gradient, loss):
    own, other = torch.tensor([1.0, 0.0, 3.0, -2.0]), torch.tensor([0.2, 0.1, -4.0, 5.0], requires_grad=True)
    loss(own, other).backward()
    assert torch.allclose(gradient(other.detach() - own), 4 * other.grad, atol=1e-5)  # the loss is a mean over 4 rows


def test_an_epoch_is_the_mean_of_its_triples():
    recorder = HardnessRecorder(lambda differences: hinge_gradient(differences, 0.5))
    recorder(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    recorder(torch.tensor([2.0]), torch.tensor([1.75]))
    assert recorder.end_epoch() == {
        "difference": -0.25 / 3,
        "gradient": pytest.approx(2 / 3),
        "gradient_share": pytest.approx(2 / 3),
    }
    assert recorder.end_epoch() is None
    many = HardnessRecorder(None)
    many(torch.tensor([1.0]), torch.tensor([3.0]))
    many.end_epoch()
    assert many.record() == {"difference": [2.0], "gradient": [None], "gradient_share": [None]}
    assert HardnessRecorder(None).record() is None


def test_bpr_counts_a_triple_from_a_hundredth_of_the_gradient_on():
    recorder = HardnessRecorder(bpr_gradient)
    recorder(torch.tensor([0.0, 5.0, 4.0]), torch.tensor([0.0, 0.0, 0.0]))  # sigmoid(-5) = .0067, sigmoid(-4) = .018
    assert recorder.end_epoch()["gradient_share"] == pytest.approx(2 / 3)


def _keys(tiny_keys, **keys):
    return {**tiny_keys, "negative_route": "none", "alignment_weight": 0.0, "negative_sampler": "dns", "epochs": 3, **keys}


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def test_hardness_of_a_resumed_run_covers_all_epochs(workdir, tiny_keys):
    def stop(epoch, _score):
        if epoch == 0:
            raise StoppedError

    keys = _keys(tiny_keys)
    straight = run(Config("HNLMLightGCN", "tiny", None, keys, ())).record
    with pytest.raises(StoppedError):
        run(Config("HNLMLightGCN", "tiny", None, keys, ()), run_id="stopped", callback_fn=stop)
    resumed = run(Config("HNLMLightGCN", "tiny", None, {**keys, "resume": "saved/stopped.last.pth"}, ())).record
    assert resumed["hardness"] == straight["hardness"]
    assert [len(series) for series in straight["hardness"].values()] == [3, 3, 3]


def test_harder_samplers_have_harder_negatives_and_losses_that_share_them_no_gradient(workdir, tiny_keys):
    def record(**keys):
        return run(Config("HNLMLightGCN", "tiny", None, _keys(tiny_keys, **keys), ())).record["hardness"]

    easy, hard = (record(negative_sampler=name)["difference"] for name in ("uniform", "dns"))
    assert hard[-1] > easy[-1]
    shared = record(rank_loss="softmax", loss_negatives=10, loss_hard_weight=1.0)
    assert shared["gradient"] == [None] * 3
    assert all(-2 <= value <= 2 for value in shared["difference"])  # cosines
    assert run(Config("BPR", "tiny", None, tiny_keys, ())).record["hardness"] is None


def test_cosines_and_their_description():
    left = np.array([[1.0, 0], [2, 0], [0, 0], [1, 1]])
    cosines = row_cosines(left, np.array([[3.0, 0], [-1, 0], [1, 0], [1, 0]]))
    assert cosines[[0, 1, 3]] == pytest.approx([1, -1, 0.5**0.5])
    assert np.isnan(cosines[2])
    shares = histogram(cosines)
    assert len(shares) == len(COSINE_EDGES) - 1 == 40
    assert (shares[0], shares[39], shares[34]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    found = described(np.array([1.0, 2.0, np.nan, 6.0]))
    assert (found["n"], found["mean"], found["median"]) == (3, 3.0, 2.0)
    assert found["std"] == pytest.approx(7**0.5)
    assert described(np.array([np.nan]))["mean"] is None


def _split(users, items):
    fields = {"u": torch.tensor(users), "i": torch.tensor(items)}
    dataset = types.SimpleNamespace(inter_feat=fields, uid_field="u", iid_field="i", join=lambda asked: asked)
    return types.SimpleNamespace(_dataset=dataset)


class Scores:
    """A model whose scores are given."""

    def __init__(self, table):
        self._table = torch.tensor(table)

    def eval(self):
        return self

    def full_sort_predict(self, asked):
        return self._table[asked["u"]].flatten()


def _sample():
    """Two users with one pair each: u1 has item 1, u2 has item 2; items 3 and 4 are held out by u1, item 1 by u2."""
    training = TrainingInteractions(
        np.array(["[PAD]", "a", "b"]), np.array(["[PAD]", "p", "q", "r", "s"]), np.array([1, 2]), np.array([1, 2])
    )
    data = types.SimpleNamespace(train=_split([1, 2], [1, 2]), valid=_split([1], [3]), test=_split([1, 2], [4, 1]))
    items = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [-1, 0]], dtype=np.float16)
    vectors = np.array([[1, 0.9], [0.1, 1]], dtype=np.float32)
    mask = np.array([False, True, True, True, True])
    return SampledPairs(np.array([1, 2]), np.array([1, 2]), vectors, items, mask, 7, {"device": "cpu"}, data, training)


def test_nearest_items_are_told_apart_by_hand():
    sample = _sample()
    assert sample.nearest[:, :4].tolist() == [[3, 2, 4, 0], [3, 1, 4, 0]]
    model = Scores([[0.0] * 5, [9.0, 9.0, 3.0, 2.0, 1.0], [0.0, 1.0, 9.0, 5.0, 5.0]])
    found = semantic_negatives(sample, model)
    assert (found["pairs"], found["pairs_with_vector"], found["items"]) == (2, 7, 4)
    first, ten = found["nearest"]["1"], found["nearest"]["10"]
    assert first["held_out_share"] == 0.5  # item 3: u1 goes on to choose it, u2 does not
    assert ten["held_out_share"] == pytest.approx(3 / 6)
    assert first["model_rank"]["mean"] == pytest.approx((2 + 1.5) / 2)  # u1: item 2 leads; u2: items 3 and 4 tie
    assert first["model_top"]["10"] == 1.0
    assert ten["model_rank"]["mean"] == pytest.approx((1 + 2 + 3 + 1.5 + 1.5 + 3) / 6)
    assert semantic_negatives(sample, None)["nearest"]["1"]["model_rank"] is None


def test_cosines_of_the_negatives_by_hand():
    found = semantic_shift(_sample(), None)["distributions"]
    own = [1 / np.hypot(1, 0.9), 1 / np.hypot(0.1, 1)]
    near = [1.9 / np.hypot(1, 0.9) / 2**0.5, 1.1 / np.hypot(0.1, 1) / 2**0.5]
    assert found["negative_positive"]["mean"] == pytest.approx(np.mean(own))
    assert found["negative_nearest"]["mean"] == pytest.approx(np.mean(near))
    assert sum(found["negative_random"]["shares"]) == pytest.approx(1.0)
    assert set(found) == {"negative_positive", "negative_nearest", "negative_random"}


def test_before_is_the_model_as_training_found_it(workdir, tiny_keys):
    config = Config("HNLMLightGCN", "tiny", None, _keys(tiny_keys), ())
    data = load_data(config)
    training = TrainingInteractions.from_dataset(data.train._dataset)
    model = build_model(config, data.train)
    model.projectors.grow([2])
    generator, users, positives = np.random.default_rng(0), training.users[:30], training.items[:30]
    vectors, items = (generator.normal(size=(rows, 2)).astype(np.float32) for rows in (30, training.n_items))
    mask = np.arange(training.n_items) > 0
    sample = SampledPairs(users, positives, vectors, items, mask, 30, config, data, training)
    found = semantic_shift(sample, model)["distributions"]
    names = ("projected_positive", "projected_user", "user_positive")
    assert [found[f"{name}_before"] == found[f"{name}_after"] for name in names] == [True] * 3
    with torch.no_grad():
        model.user_embedding.weight.add_(model.user_embedding.weight.flip(0))
    model._propagated = None
    moved = semantic_shift(sample, model)["distributions"]
    assert moved["user_positive_before"] == found["user_positive_before"] != moved["user_positive_after"]
