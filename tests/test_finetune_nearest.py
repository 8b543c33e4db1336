import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kit import PLAIN, build, make_config, write_random

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.nearest import nearest_items
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.utils.errors import ConfigError


def make_training(users, items, n_users, n_items):
    tokens = [np.array([str(place) for place in range(count)]) for count in (n_users, n_items)]
    return TrainingInteractions(*tokens, np.array(users, dtype=np.int64), np.array(items, dtype=np.int64))


def test_nearest_by_hand():
    training = make_training([1, 1, 2], [1, 2, 3], 3, 5)
    items = np.array([[0, 0], [1, 0], [1, 0.1], [5, 5], [0, 1]], dtype=np.float32)
    mask = np.array([False, True, True, True, True])
    found = nearest_items(np.array([[1, 0], [1, 0], [0, 1]]), np.array([1, 2, 2]), items, mask, training, 3)
    assert found.tolist() == [[3, 4, 0], [1, 2, 4], [4, 2, 1]]
    assert nearest_items(np.array([[1, 0]]), np.array([2]), items, mask & (np.arange(5) != 1), training, 1).tolist() == [[2]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_nearest_is_what_sorting_gives(seed, count):
    rng = np.random.default_rng(seed)
    training = make_training(rng.integers(1, 5, 20), rng.integers(1, 9, 20), 5, 9)
    items, vectors, users = rng.standard_normal((9, 3)), rng.standard_normal((7, 3)), rng.integers(1, 5, 7)
    mask = np.arange(9) > 0
    found = nearest_items(vectors, users, items.astype(np.float32), mask, training, count)
    units = items / np.linalg.norm(items, axis=1, keepdims=True)
    for row, user in enumerate(users):
        history = set(training.history_of(int(user)))
        free = [item for item in np.argsort(-(vectors[row] @ units.T)) if item and item not in history]
        assert found[row].tolist() == (free + [0] * count)[:count]


def test_one_near_item_joins_the_candidates(tmp_path):
    write_random(tmp_path)
    _, model, *_ = build(make_config(tmp_path, **PLAIN))
    candidates = torch.tensor([[5, 6], [7, 8], [5, 7], [6, 8]])
    near = torch.tensor([[3, 4], [0, 0]], dtype=torch.int32)
    joined = model._with_semantic_candidate(near, torch.tensor([0, 1, -1, 0]), candidates)
    assert torch.equal(joined[:, :2], candidates)
    assert int(joined[0, 2]) in {3, 4}
    assert joined[1, 2] == 7
    assert joined[2, 2] == 5
    drawn = {int(model._with_semantic_candidate(near, torch.tensor([0]), candidates[:1])[0, 2]) for _ in range(40)}
    assert drawn == {3, 4}


def test_what_it_needs_is_said():
    with pytest.raises(ConfigError, match="negative_route finetuned"):
        validate_settings({"semantic_candidates": 5})
    with pytest.raises(ConfigError, match="dns or dns_mn, got uniform"):
        validate_settings({"semantic_candidates": 5, "negative_route": "finetuned", "negative_sampler": "uniform"})
