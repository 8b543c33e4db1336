"""TextGCN: propagated texts by hand."""

import numpy as np
import pytest
import torch
from model_kit import build, make_config, write_random

from recbole_hnlm.model.propagation import normalized_adjacency
from recbole_hnlm.model.text_graph import propagated_texts
from recbole_hnlm.model.textgcn import TextGCN
from recbole_hnlm.utils.errors import ArtifactError, ConfigError


def vectors_by_hand(n_layers):
    """User 1 has item 1, user 2 items 1 and 2; the items' texts are (1, 0) and (0, 1), users are means."""
    adjacency = normalized_adjacency(np.array([1, 2, 2]), np.array([1, 1, 2]), 3, 3)
    users = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    items = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return propagated_texts(adjacency, users, items, n_layers)


def test_one_layer_by_hand():
    users, items = vectors_by_hand(1)
    root = 0.5**0.5
    # Own vector plus the neighbours', each divided by the root of both degrees; the mean over layers is undone by the length.
    expected_users = torch.tensor([[1 + root, 0.0], [0.5 + 0.5, 0.5 + root]])
    expected_items = torch.tensor([[1 + root + 0.25, 0.25], [0.5 * root, 1 + 0.5 * root]])
    for found, expected in ((users, expected_users), (items, expected_items)):
        assert torch.allclose(found[1:], expected / expected.norm(dim=1, keepdim=True), atol=1e-5)
        assert found[0].tolist() == [0.0, 0.0]


def test_without_layers_the_score_is_the_cosine_of_the_texts():
    users, items = vectors_by_hand(0)
    half = 0.5**0.5
    assert torch.allclose(users[1:] @ items[1:].t(), torch.tensor([[1.0, 0.0], [half, half]]))


def config_of(tmp_path, **keys):
    write_random(tmp_path)
    return make_config(tmp_path, model=TextGCN, **{"alignment_source": "text", **keys})


def test_scores_are_the_cosines_of_the_mean_over_layers(tmp_path):
    _, model, *_ = build(config_of(tmp_path, n_layers=3), True)
    items = model.texts.item_vectors.double()
    has = torch.zeros(model.n_users, model.n_items, dtype=torch.float64)
    training = build(config_of(tmp_path, n_layers=3), True)[0]._dataset.inter_feat
    has[training["user_id"], training["item_id"]] = 1.0
    users = has @ items / has.sum(dim=1, keepdim=True).clamp_min(1)
    adjacency = has / has.sum(dim=1, keepdim=True).clamp_min(1).sqrt() / has.sum(dim=0).clamp_min(1).sqrt()
    mean_users, mean_items = users.clone(), items.clone()
    for _ in range(3):
        users, items = adjacency @ items, adjacency.t() @ users
        mean_users, mean_items = mean_users + users, mean_items + items
    expected = torch.nn.functional.normalize(mean_users) @ torch.nn.functional.normalize(mean_items).t()
    found = model.eval().full_sort_predict({"user_id": torch.arange(model.n_users)}).view(model.n_users, -1)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_without_texts_or_with_a_wrong_key_it_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="TextGCN needs vectors of items' texts, but the data carries none"):
        build(config_of(tmp_path))
    with pytest.raises(ConfigError, match="n_layers is -1, expected an integer of at least 0"):
        build(config_of(tmp_path, n_layers=-1), True)
