"""DTL: similarity, eigenmaps, trees and paths by hand, and the choice against its formula."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_sampler_mixgcf import HOPS, B, step

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.negative_sampler import dtl, mixgcf
from recbole_hnlm.negative_sampler.dtl import DTL, common_share, eigenmaps, jaccard, min_max, tree_paths
from recbole_hnlm.utils.errors import ArtifactError


def test_jaccard_by_hand():
    # Items 0 and 1 share one of three users, 1 and 2 share two of two.
    history = sp.csr_matrix(np.array([[1, 0, 0], [1, 1, 1], [0, 1, 1]], dtype=np.float32))
    expected = [[0, 1 / 3, 1 / 3], [1 / 3, 0, 1], [1 / 3, 1, 0]]
    assert np.allclose(jaccard(history).toarray(), expected)


def test_eigenmaps_of_two_groups_and_of_a_known_laplacian():
    # Two triangles with a weak tie: the first vector after the constant one has a sign for each.
    similarity = np.kron(np.eye(2), np.ones((3, 3))) - np.eye(6)
    similarity[2, 3] = similarity[3, 2] = 0.1
    found = eigenmaps(sp.csr_matrix(similarity), 2)
    assert found.shape == (6, 2)
    sign = np.sign(found[:, 0])
    assert (sign[:3] == sign[0]).all()
    assert (sign[3:] == -sign[0]).all()
    scale = np.diag(similarity.sum(axis=1) ** -0.5)
    laplacian = np.eye(6) - scale @ similarity @ scale
    values = np.linalg.eigvalsh(laplacian)
    for column, value in zip(found.T, values[1:3], strict=True):
        assert np.allclose(laplacian @ column, value * column, atol=1e-8)


def test_a_tree_separates_groups_is_balanced_and_deterministic():
    centres = np.array([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    vectors = np.repeat(centres, 8, axis=0) + np.random.default_rng(0).normal(size=(32, 2))
    paths = tree_paths(vectors, np.arange(1, 32), leaf=8)
    assert paths.shape == (32, 1)
    assert paths[0].tolist() == [-1]  # not in the tree
    groups = [set(paths[max(1, 8 * group) : 8 * group + 8, 0].tolist()) for group in range(4)]
    assert all(len(group) == 1 for group in groups)
    assert set.union(*groups) == {0, 1, 2, 3}
    assert np.array_equal(tree_paths(vectors, np.arange(1, 32), leaf=8), paths)
    # Equal vectors are spread evenly enough; all is one leaf where there are few.
    same = tree_paths(np.zeros((40, 2)), np.arange(40), leaf=8)
    assert np.bincount(same[:, 0]).max() <= 16
    _, sizes = np.unique(same, axis=0, return_counts=True)
    assert sizes.max() <= 8
    assert tree_paths(vectors, np.arange(8), leaf=8).shape == (32, 0)


def test_common_paths_by_hand():
    first = torch.tensor([[0, 1, 2], [3, -1, -1], [-1, -1, -1]])[:, None]
    second = [[[0, 1, 3], [0, 2, 2], [0, 1, -1]], [[3, 0, 0], [2, -1, -1], [-1] * 3], [[0, 1, 2], [-1] * 3, [0] * 3]]
    expected = torch.tensor([[2 / 3, 1 / 3, 1.0], [1.0, 0.0, 0.0], [0.0] * 3])
    assert torch.allclose(common_share(first, torch.tensor(second)), expected)


def test_scores_are_scaled_by_row():
    assert min_max(torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]])).tolist() == [[0.0, 1.0, 0.5], [0.0] * 3]


def selector(inputs, structure=0.1, text=0.3):
    """A selector of random trees of 20 items."""
    rng = np.random.default_rng(1)
    tokens = np.arange(20).astype(str)
    training = TrainingInteractions(tokens[:10], tokens, rng.integers(1, 10, 90), rng.integers(1, 20, 90))
    texts = SimpleNamespace(item_mask=torch.arange(20) > 0, item_vectors=torch.from_numpy(rng.normal(size=(20, 6))).half())
    settings = HNLMSettings(negative_sampler="dtl", dtl_structure_weight=structure, dtl_text_weight=text)
    context = SimpleNamespace(
        settings=settings, training=lambda: training, texts=texts, n_users=10, n_items=20, device=torch.device("cpu")
    )
    return DTL(context)


@pytest.mark.parametrize("pooling", ["mean", "concat"])
def test_equals_the_literal_formula(monkeypatch, pooling):
    monkeypatch.setattr(dtl.tree_paths, "__defaults__", (5,))
    inputs = step(pooling)
    chooser = selector(inputs, 0.4, 0.7)
    assert all(paths.shape[1] >= 1 for paths in chooser._paths)
    torch.manual_seed(3)
    found = chooser.select(inputs)
    torch.manual_seed(3)
    propagated, expected = inputs.propagated, []
    near = [common_share(paths[inputs.positives][:, None], paths[inputs.candidates]) for paths in chooser._paths]
    assert all(0 < float(part.mean()) < 1 for part in near)
    for layer in range(HOPS):
        share = torch.rand(B, 1).unsqueeze(1)
        items = propagated.item_hops[layer]
        mixed = share * items[inputs.positives].unsqueeze(1) + (1 - share) * items[inputs.candidates]
        query = propagated.user_all if pooling == "mean" else propagated.user_hops[layer]
        scores = (query[inputs.users].unsqueeze(1) * mixed).sum(-1)
        scores = (scores - scores.amin(1, True)) / (scores.amax(1, True) - scores.amin(1, True))
        best = (scores + 0.4 * near[0] + 0.7 * near[1]).argmax(1)
        expected.append(mixed[torch.arange(B), best])
    whole = sum(expected) / HOPS if pooling == "mean" else torch.cat(expected, 1)
    assert torch.allclose(found.embeddings, whole, atol=1e-6)


def test_without_weights_it_is_mixgcf_and_without_texts_it_says_so():
    inputs = step("mean")
    torch.manual_seed(3)
    found = selector(inputs, 0.0, 0.0).select(inputs)
    torch.manual_seed(3)
    assert torch.equal(found.embeddings, mixgcf.SAMPLER.build(None).select(inputs).embeddings)
    bare = selector(inputs)
    bare._paths = []
    with pytest.raises(ArtifactError, match="dtl has no text vectors"):
        bare.select(inputs)
