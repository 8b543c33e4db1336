import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from model_kit import PLAIN, make_config, prepare, write_interactions, write_random
from recbole.model.general_recommender.lightgcn import LightGCN

from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.model.propagation import normalized_adjacency, propagate_hops, propagate_mean
from recbole_hnlm.model.recbole_graphs import on_current_scipy


def dense(adjacency):
    size = adjacency.n_users + adjacency.n_items
    return sp.csr_matrix((adjacency.values, adjacency.indices, adjacency.indptr), shape=(size, size)).toarray()


def test_adjacency_by_hand():
    # Users 1 and 2, items 1 and 2; edges 1-1 (twice), 1-2, 2-1: degrees u1 2, u2 1, i1 2, i2 1.
    adjacency = normalized_adjacency(np.array([1, 1, 1, 2]), np.array([1, 1, 2, 1]), n_users=3, n_items=3)
    expected = np.zeros((6, 6))
    for user, item, value in ((1, 1, 1 / 2), (1, 2, 1 / np.sqrt(2)), (2, 1, 1 / np.sqrt(2))):
        expected[user, 3 + item] = expected[3 + item, user] = value
    assert np.allclose(dense(adjacency), expected, atol=1e-6)


@pytest.mark.parametrize("duplicates", [False, True])
def test_adjacency_equals_recbole(tmp_path, duplicates):
    write_random(tmp_path)
    if duplicates:
        rng = np.random.default_rng(3)
        write_interactions(tmp_path, [(u, i) for u, i in rng.integers(0, 30, (500, 2))])
    config = make_config(tmp_path, **PLAIN)
    train, _, _ = prepare(config)
    pairs = train._dataset.inter_matrix(form="coo")
    assert (pairs.nnz > len(set(zip(pairs.row, pairs.col, strict=True)))) == duplicates
    theirs = on_current_scipy(LightGCN)(config, train._dataset).norm_adj_matrix.to_dense().numpy()
    ours = dense(HNLMLightGCN(config, train._dataset).norm_adj_matrix)
    assert np.count_nonzero(ours) == np.count_nonzero(theirs)
    assert np.abs(ours - theirs).max() < 1e-7


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_propagation_is_the_mean_of_powers_with_its_gradient(n_layers):
    rng = np.random.default_rng(0)
    adjacency = normalized_adjacency(rng.integers(1, 9, 40), rng.integers(1, 7, 40), 9, 7)
    matrix = torch.tensor(dense(adjacency))
    users, items = torch.randn(9, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    ours = torch.cat(propagate_mean(adjacency, users, items, n_layers))
    ego = torch.cat([users, items])
    powers = [ego]
    for _ in range(n_layers):
        powers.append(matrix @ powers[-1])
    theirs = torch.stack(powers).mean(0)
    assert torch.allclose(ours, theirs, atol=1e-6)
    weight = torch.randn(16, 5)
    gradients = [torch.autograd.grad((out * weight).sum(), (users, items), retain_graph=True) for out in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        assert torch.allclose(mine, reference, atol=1e-6)


def test_device_matrix_gives_the_same_product():
    # The accelerator's path needs only torch's CSR product, which the CPU has too.
    rng = np.random.default_rng(0)
    adjacency = normalized_adjacency(rng.integers(1, 9, 40), rng.integers(1, 7, 40), 9, 7)
    other = dataclasses.replace(adjacency, device_matrix=adjacency.as_torch())
    assert torch.equal(other.device_matrix.to_dense(), torch.tensor(dense(adjacency)))
    x, base = torch.randn(16, 5), torch.randn(16, 5)
    assert torch.allclose(other.multiply_add(x, base, 0.25), adjacency.multiply_add(x, base, 0.25), atol=1e-6)


def test_threads_do_not_change_the_product():
    rng = np.random.default_rng(1)
    adjacency = normalized_adjacency(rng.integers(1, 900, 20_000), rng.integers(1, 700, 20_000), 900, 700)
    users, items = torch.randn(900, 8), torch.randn(700, 8)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 4):
        torch.set_num_threads(count)
        results.append(torch.cat(propagate_mean(adjacency, users, items, 2)))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_hops_are_the_powers_and_their_gradients_come_back():
    users, items = np.array([1, 1, 2, 3, 3]), np.array([1, 2, 2, 1, 3])
    adjacency = normalized_adjacency(users, items, 4, 4)
    dense = adjacency.as_torch().to_dense().double()
    ego = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    parts = [ego[:4].clone().requires_grad_(), ego[4:].clone().requires_grad_()]
    weights = [torch.randn(8, 3, generator=torch.Generator().manual_seed(layer)) for layer in range(4)]
    user_hops, item_hops = propagate_hops(adjacency, *parts, 3)
    assert user_hops[0] is parts[0]
    total = sum((torch.cat([u, i]) * w).sum() for u, i, w in zip(user_hops, item_hops, weights, strict=True))
    total.backward()
    powers = [torch.linalg.matrix_power(dense, layer) for layer in range(4)]
    for layer in range(4):
        assert torch.allclose(torch.cat([user_hops[layer], item_hops[layer]]).double(), powers[layer] @ ego.double(), atol=1e-6)
    expected = sum(power @ weight.double() for power, weight in zip(powers, weights, strict=True))  # the matrix is symmetric
    assert torch.allclose(torch.cat([part.grad for part in parts]).double(), expected, atol=1e-5)
    mean = propagate_mean(adjacency, *parts, 3)
    assert torch.allclose(sum(user_hops) / 4, mean[0], atol=1e-6)
    assert torch.allclose(sum(item_hops) / 4, mean[1], atol=1e-6)
