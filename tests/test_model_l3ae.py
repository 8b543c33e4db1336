"""L3AE: both phases against the conditions of their optimum, EASE as its limit, and the limit of memory."""

import numpy as np
import psutil
import pytest
import scipy.sparse as sp
import torch
from model_kit import build, make_config, write_random
from recbole.model.general_recommender import EASE

from recbole_hnlm.model import l3ae
from recbole_hnlm.model.l3ae import L3AE, inverse_of_gram, item_weights, text_weights
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

KEYS = {"alignment_source": "text", "l3ae_text_ridge": 1.0, "l3ae_ridge": 5.0, "l3ae_share": 0.8}


def data(users=30, items=13, dim=4):
    rng = np.random.default_rng(3)
    history = sp.csr_matrix((rng.random((users, items)) < 0.3).astype(np.float32))
    texts = rng.normal(size=(items, dim)).astype(np.float32)
    texts[2] = 0.0  # has no text
    return history, texts


def text_model(texts, ridge):
    """C of phase 1, by the textbook formula."""
    inverse = np.linalg.inv(texts.astype(np.float64) @ texts.T + ridge * np.eye(len(texts)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def test_phase_1_of_two_items_by_hand():
    # F'F + I = [[2, 1], [1, 3]], its inverse [[3, -1], [-1, 2]] / 5: C_12 = 1/2, C_21 = 1/3.
    left, right, diagonal = text_weights(np.array([[1.0, 0.0], [1.0, 1.0]], dtype=np.float32), 1.0)
    weights = left @ right
    assert np.diag(weights) == pytest.approx(diagonal)
    assert (weights[0, 1], weights[1, 0]) == pytest.approx((1 / 2, 1 / 3))


@pytest.mark.parametrize("dim", [4, 20])  # fewer and more than items
def test_phase_1_is_at_its_optimum(dim):
    _, texts = data(dim=dim)
    left, right, diagonal = text_weights(texts, 0.7)
    weights = (left @ right).astype(np.float64)
    assert np.allclose(np.diag(weights), diagonal, atol=1e-5)
    np.fill_diagonal(weights, 0.0)
    gram = texts.astype(np.float64) @ texts.T
    gradient = gram @ weights - gram + 0.7 * weights
    assert np.abs(off_diagonal(gradient)).max() < 1e-4
    assert np.abs(weights).max() > 0.1
    assert not weights[2].any()
    assert not weights[:, 2].any()


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0, 2.0])
def test_phase_2_is_at_its_optimum(monkeypatch, share):
    monkeypatch.setattr(l3ae, "_ROWS", 5)
    history, texts = data()
    weights = item_weights(history, texts, text_ridge=0.7, ridge=3.0, share=share).astype(np.float64)
    towards = text_model(texts, 0.7)
    gram = (history.T @ history).toarray().astype(np.float64)
    of_texts = 3.0 * share
    gradient = gram @ weights - gram + (3.0 - of_texts) * weights + of_texts * (weights - towards)
    assert not np.diag(weights).any()
    assert np.abs(off_diagonal(gradient)).max() < 1e-4
    assert np.abs(gradient).max() > 1.0  # the diagonal is held at 0 against its gradient
    assert weights.flags.c_contiguous


def test_the_inverse_is_whole_whatever_the_blocks(monkeypatch):
    monkeypatch.setattr(l3ae, "_ROWS", 5)
    history, _ = data()
    gram = (history.T @ history).toarray()
    assert np.allclose(inverse_of_gram(history, 2.0) @ (gram + 2.0 * np.eye(13)), np.eye(13), atol=1e-5)


def test_a_ridge_that_is_too_small_is_one_line():
    twice = sp.csr_matrix(np.ones((3, 2), dtype=np.float32))  # two equal columns
    with pytest.raises(ConfigError, match=r"l3ae_ridge 1e-30 is too small"):
        inverse_of_gram(twice, 1e-30)


def config_of(tmp_path, model=L3AE, **keys):
    write_random(tmp_path)
    return make_config(tmp_path, model=model, **{**KEYS, **keys})


def everyone(model):
    return {"user_id": torch.arange(1, model.n_users)}


def test_without_texts_it_is_recboles_ease(tmp_path):
    ease = build(config_of(tmp_path, EASE, reg_weight=5.0))[1]
    ours = build(config_of(tmp_path, l3ae_share=0.0), True)[1]
    expected, found = (model.full_sort_predict(everyone(model)) for model in (ease, ours))
    assert torch.allclose(found, expected, atol=1e-5)
    pulled = build(config_of(tmp_path), True)[1]
    assert not torch.allclose(pulled.full_sort_predict(everyone(pulled)), expected, atol=1e-2)


def test_a_checkpoint_holds_what_was_solved_for_and_needs_no_texts(tmp_path):
    solved = build(config_of(tmp_path), True)[1]
    solved.solve()
    bare = build(config_of(tmp_path))[1]
    bare.load_other_parameter(solved.other_parameter())
    assert torch.equal(bare.full_sort_predict(everyone(bare)), solved.full_sort_predict(everyone(solved)))


def test_without_texts_memory_or_with_a_wrong_key_it_says_so(tmp_path, monkeypatch):
    loader, model, *_ = build(config_of(tmp_path))
    batch = next(iter(loader))
    with pytest.raises(ArtifactError, match="L3AE needs vectors of items' texts"):
        model.calculate_loss(batch)
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(ConfigError, match=r"items x items, which takes .* for 31 items, but .*item_inter_num_interval"):
        model.calculate_loss(batch)
    for key, value in (("l3ae_text_ridge", 0), ("l3ae_ridge", 0), ("l3ae_share", -0.1)):
        with pytest.raises(ConfigError, match=f"{key} is {value}, expected a number"):
            build(config_of(tmp_path, **{key: value}), True)
