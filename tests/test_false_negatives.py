"""Counting chosen negatives that the user liked after all."""

import types

import numpy as np
import pytest
import torch

from recbole_hnlm.config import Config
from recbole_hnlm.evaluator.false_negatives import FalseNegativeCounter
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.pairs import PairSet


def test_rates_are_those_of_the_held_out_pairs():
    counter = FalseNegativeCounter(PairSet(torch.tensor([1, 3, 3, 2]), torch.tensor([2, 4, 4, 9]), 10))
    counter(torch.tensor([1, 1, 3]), torch.tensor([2, 4, 4]))
    counter(torch.tensor([2]), torch.tensor([8]))
    assert counter.end_epoch() == 0.5
    counter(torch.tensor([9]), torch.tensor([9]))
    assert counter.end_epoch() == 0.0
    assert counter.end_epoch() is None
    assert counter.rates == [0.5, 0.0]


def test_a_split_without_interactions_has_no_false_negatives():
    counter = FalseNegativeCounter(PairSet(*torch.empty(2, 0, dtype=torch.int64), 10))
    counter(torch.tensor([1]), torch.tensor([2]))
    assert counter.end_epoch() == 0.0


def test_both_splits_are_read():
    valid, test = (
        types.SimpleNamespace(
            inter_feat={"u": torch.tensor([user]), "i": torch.tensor([5])}, uid_field="u", iid_field="i", item_num=7
        )
        for user in (1, 2)
    )
    counter = FalseNegativeCounter.of_splits([valid, test])
    counter(torch.tensor([1, 2, 3]), torch.tensor([5, 5, 5]))
    assert counter.end_epoch() == pytest.approx(2 / 3)


def _run(workdir, tiny_keys, **keys):
    given = {**tiny_keys, "negative_route": "none", "alignment_weight": 0.0, "epochs": 3, **keys}
    return run(Config("HNLMLightGCN", "tiny", None, given, ())).record


def test_counting_changes_nothing_in_training(workdir, tiny_keys):
    plain, counted = (_run(workdir, tiny_keys, negative_sampler="dns", count_false_negatives=on) for on in (False, True))
    assert plain["false_negative_rates"] is None
    assert len(counted["false_negative_rates"]) == 3
    assert counted["train_loss"] == plain["train_loss"]
    assert counted["test_result"] == plain["test_result"]


def test_uniform_negatives_are_false_as_often_as_chance_says(workdir, tiny_keys):
    record = _run(workdir, tiny_keys, negative_sampler="uniform", count_false_negatives=True, epochs=30, stopping_step=30)
    from recbole_hnlm.data.loading import load_data  # noqa: PLC0415 - after the run, which sets RecBole's logging up

    data = load_data(Config("HNLMLightGCN", "tiny", None, tiny_keys, ()))
    n_users, n_items = data.dataset.user_num, data.dataset.item_num

    def counts(*loaders):
        users = np.concatenate([np.asarray(loader._dataset.inter_feat["user_id"]) for loader in loaders])
        return np.bincount(users, minlength=n_users)

    seen, held = counts(data.train), counts(data.valid, data.test)
    expected = (seen * held / (n_items - 1 - seen)).sum() / seen.sum()
    draws = 30 * seen.sum()
    assert np.mean(record["false_negative_rates"]) == pytest.approx(expected, abs=4 * np.sqrt(expected / draws))


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def test_rates_of_a_resumed_run_cover_all_epochs(workdir, tiny_keys):
    keys = {**tiny_keys, "negative_route": "none", "alignment_weight": 0.0, "epochs": 3, "count_false_negatives": True}

    def stop(epoch, _score):
        if epoch == 0:
            raise StoppedError

    straight = run(Config("HNLMLightGCN", "tiny", None, keys, ())).record
    with pytest.raises(StoppedError):
        run(Config("HNLMLightGCN", "tiny", None, keys, ()), run_id="stopped", callback_fn=stop)
    resumed = run(Config("HNLMLightGCN", "tiny", None, {**keys, "resume": "saved/stopped.last.pth"}, ())).record
    assert resumed["false_negative_rates"] == straight["false_negative_rates"]
    assert len(straight["false_negative_rates"]) == 3


def test_a_checkpoint_that_did_not_count_is_not_counted_on(workdir, tiny_keys):
    keys = {**tiny_keys, "negative_route": "none", "alignment_weight": 0.0, "epochs": 1}
    run(Config("HNLMLightGCN", "tiny", None, keys, ()), run_id="first")
    again = {**keys, "epochs": 2, "resume": "saved/first.last.pth", "count_false_negatives": True}
    with pytest.raises(ArtifactError, match=r"trained without counting false negatives.*--count_false_negatives=False"):
        run(Config("HNLMLightGCN", "tiny", None, again, ()))
