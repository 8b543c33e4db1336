"""SimGCL, XSimGCL and the parts of SGL and NCL, by hand."""

import math
import sys

import numpy as np
import pytest
import torch
from model_kit import PLAIN, build, write_random
from test_model_backbones import configure

from recbole_hnlm.model import cosine_contrast
from recbole_hnlm.model.graph_views import draw_view, kept_interactions
from recbole_hnlm.model.losses import bpr_loss, info_nce_against, info_nce_over_table
from recbole_hnlm.model.simgcl import SimGCL, batch_contrast, with_noise
from recbole_hnlm.model.unit_messages import plain_unit_messages, unit_messages
from recbole_hnlm.utils.errors import ConfigError, MissingDependencyError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path)


def test_noise_by_hand():
    # d = (3, 4), of length 5, with norm 1/2: 0.3 and 0.4 with the signs of e; a zero has no sign and gets nothing.
    e = torch.tensor([[1.0, -2.0], [0.0, 5.0]], requires_grad=True)
    noisy = with_noise(e, torch.tensor([[3.0, 4.0], [3.0, 4.0]]), 0.5)
    assert torch.allclose(noisy, torch.tensor([[1.3, -2.4], [0.0, 5.4]]))
    noisy.sum().backward()
    assert torch.equal(e.grad, torch.ones(2, 2))


@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.5])
@pytest.mark.parametrize("same", [False, True])
def test_the_contrast_by_blocks_is_that_of_autograd(monkeypatch, temperature, same):
    """Loss and gradients, with repeated targets, weights, a block that is not full, and rows of zeros."""
    monkeypatch.setattr(cosine_contrast, "_LEAST_ROWS", 7)
    monkeypatch.setattr(cosine_contrast, "_BLOCK_NUMBERS", 0)
    torch.manual_seed(0)
    table = torch.randn(23, 6)
    table[3] = 0.0
    rows = table.clone() if same else torch.randn(23, 6)
    targets, weights = torch.randint(23, (23,)), torch.rand(23)
    found, expected = [], []
    for function, results in ((cosine_contrast.cosine_contrast, found), (cosine_contrast.plain_cosine_contrast, expected)):
        one, other = rows.clone().requires_grad_(), table.clone().requires_grad_()
        loss = function(one, one if same else other, targets, weights, temperature)
        (3.0 * loss).backward()
        results += [loss, one.grad, *([] if same else [other.grad])]
    for ours, autograds in zip(found, expected, strict=True):
        assert torch.allclose(ours, autograds, rtol=1e-4, atol=1e-4)
    assert cosine_contrast.cosine_contrast(rows, table, targets, weights, temperature).item() == pytest.approx(
        cosine_contrast.plain_cosine_contrast(rows, table, targets, weights, temperature).item(), rel=1e-5
    )


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.3, True), (0.3, False)])
def test_messages_of_ngcf_in_one_pass_are_autograds(rate, training):
    torch.manual_seed(0)
    nodes = torch.randn(50, 8)
    nodes[3] = 0.0
    wanted = torch.randn(50, 8)
    results = []
    for function in (unit_messages, plain_unit_messages):
        torch.manual_seed(1)
        given = nodes.clone().requires_grad_()
        out = function(given, rate, training)
        (out * wanted).sum().backward()
        given.grad[3] = 0.0  # of a row of zeros it is of the order of 1e12
        results.append((out.detach(), given.grad, torch.rand(3)))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_info_nce_against_a_table_by_hand():
    # Anchor x against x, y, -x at t = 1/2: the partner is y, so -log(e^0 / (e^2 + e^0 + e^-2)). Lengths do not matter.
    anchors, others = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    expected = math.log(math.exp(2) + 1 + math.exp(-2))
    assert info_nce_against(anchors, others, torch.tensor([1]), 0.5).item() == pytest.approx(expected, abs=1e-6)
    assert info_nce_against(anchors, others, torch.tensor([0]), 0.5).item() == pytest.approx(expected - 2, abs=1e-6)


def test_info_nce_over_a_table_weighs_repeated_rows():
    rng = torch.Generator().manual_seed(0)
    one, other = (torch.randn(6, 3, generator=rng) for _ in range(2))
    ids = torch.tensor([4, 1, 4, 4, 0])
    found, expected = info_nce_over_table(one, other, ids, 0.3), info_nce_against(one[ids], other, ids, 0.3)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert found.item() != pytest.approx(info_nce_against(one[ids.unique()], other, ids.unique(), 0.3).item(), abs=1e-3)


def test_batch_contrast_takes_each_node_once():
    # Nodes 1 and 2 are orthonormal and equal in both propagations: each gives log(1 + e^(-1/t)); node 1 stands twice.
    table = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    found = batch_contrast(table, 2 * table, torch.tensor([1, 2, 1]), 0.5)
    assert found.item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)


def graph(model):
    matrix = model.norm_adj_matrix.as_torch().to_dense()
    return matrix, torch.cat(model.ego_embeddings())


def test_simgcl_loss_is_its_formula(tmp_path):
    keys = {"n_layers": 3, "ssl_weight": 0.4, "ssl_tau": 0.3, "noise_norm": 0.2, "reg_weight": 0.0, "num_candidates": 1}
    config = configure(tmp_path, "SimGCL", **keys, **PLAIN)
    loader, model, _, _ = build(config)
    batch = next(iter(loader))
    torch.manual_seed(4)
    rank, reg, ssl = model.calculate_loss(batch)
    matrix, ego = graph(model)
    clean, layers = ego, []
    for _ in range(3):
        clean = matrix @ clean
        layers.append(clean)
    output = sum(layers) / 3  # the embeddings themselves are left out
    n, (u, i, j) = model.n_users, (batch[name] for name in ("user_id", "item_id", "neg_item_id"))
    scores = [(output[u] * output[n + items]).sum(1) for items in (i, j)]
    assert rank.item() == pytest.approx(bpr_loss(*scores).item(), abs=1e-6)
    assert reg.item() == 0
    torch.manual_seed(4)
    views = []
    for _ in range(2):
        nodes, total = ego, 0
        for _ in range(3):
            nodes = matrix @ nodes
            draw = torch.rand_like(nodes)
            nodes = nodes + 0.2 * nodes.sign() * draw / draw.norm(dim=1, keepdim=True)
            total = total + nodes / 3
        views.append(torch.nn.functional.normalize(total, dim=1))
    expected = 0
    for ids in (u.unique(), n + i.unique()):
        similar = (views[0][ids] @ views[1][ids].t() / 0.3).exp()
        expected = expected - (similar.diag() / similar.sum(1)).log().mean()
    assert ssl.item() == pytest.approx(0.4 * expected.item(), abs=1e-5)


def test_xsimgcl_loss_is_its_formula(tmp_path):
    keys = {"n_layers": 3, "ssl_weight": 0.4, "ssl_tau": 0.3, "noise_norm": 0.2, "contrast_layer": 2}
    loader, model, _, _ = build(configure(tmp_path, "XSimGCL", **keys, **PLAIN))
    batch = next(iter(loader))
    torch.manual_seed(4)
    rank, _, ssl = model.calculate_loss(batch)
    torch.manual_seed(4)
    matrix, nodes = graph(model)
    layers = []
    for _ in range(3):
        nodes = matrix @ nodes
        draw = torch.rand_like(nodes)
        nodes = nodes + 0.2 * nodes.sign() * draw / draw.norm(dim=1, keepdim=True)
        layers.append(nodes)
    output = sum(layers) / 3
    n, (u, i, j) = model.n_users, (batch[name] for name in ("user_id", "item_id", "neg_item_id"))
    scores = [(output[u] * output[n + items]).sum(1) for items in (i, j)]
    assert rank.item() == pytest.approx(bpr_loss(*scores).item(), abs=1e-6)
    expected = 0
    for ids in (u.unique(), n + i.unique()):
        one, other = (torch.nn.functional.normalize(side[ids], dim=1) for side in (output, layers[1]))
        similar = (one @ other.t() / 0.3).exp()
        expected = expected - (similar.diag() / similar.sum(1)).log().mean()
    assert ssl.item() == pytest.approx(0.4 * expected.item(), abs=1e-5)
    model.eval()
    first = model.propagate_for_scoring()[0].clone()
    model.train()
    model.eval()
    assert torch.equal(first, model.propagate_for_scoring()[0])  # scoring has no noise


@pytest.mark.parametrize("name", ["SimGCL", "XSimGCL"])
def test_hnlm_variant_without_semantics_is_the_plain_model(tmp_path, name):
    parts = []
    for variant in (name, f"HNLM{name}"):
        loader, _, _, _ = build(configure(tmp_path, f"HNLM{name}", **PLAIN))
        config = configure(tmp_path, variant, **PLAIN)
        model = build(config)[1]
        torch.manual_seed(1)
        parts.append([part.item() for part in model.calculate_loss(next(iter(loader)))])
    assert parts[0] == parts[1]
    assert isinstance(model, SimGCL)


@pytest.mark.parametrize("kind", ["ED", "ND", "RW"])
def test_views_drop_what_they_say(kind):
    users, items = np.repeat(np.arange(1, 11), 10), np.tile(np.arange(1, 11), 10)
    torch.manual_seed(0)
    kept = kept_interactions(kind, users, items, (11, 11), 0.3)
    if kind != "ND":
        assert kept.sum() == 70
    else:
        grid = kept.reshape(10, 10)
        lost_users, lost_items = (~grid.any(1)).sum(), (~grid.any(0)).sum()
        assert {lost_users, lost_items} <= {2, 3}  # 3 of 11 ids, of which one is the padding
        assert kept.sum() == (10 - lost_users) * (10 - lost_items)
    assert not np.array_equal(kept, kept_interactions(kind, users, items, (11, 11), 0.3))
    view = draw_view(kind, users, items, (11, 11), 0.3)
    dense = view.as_torch().to_dense()
    degrees = (dense > 0).sum(1)
    expected = (degrees.unsqueeze(1) * degrees).clamp_min(1).pow(-0.5) * (dense > 0)
    assert torch.allclose(dense, expected, atol=1e-6)  # normalised by the degrees that are left


def test_sgl_draws_views_for_each_epoch_only(tmp_path):
    loader, model, _, _ = build(configure(tmp_path, "HNLMSGL", **PLAIN))
    model.start_epoch(0)
    first = model._views
    assert not np.array_equal(first[0][0].indices, first[1][0].indices)
    model.calculate_loss(next(iter(loader)))
    model.eval()
    model.train()
    assert model._views is first
    model.start_epoch(1)
    assert not np.array_equal(model._views[0][0].indices, first[0][0].indices)


def test_ncl_clusters_after_the_warm_up_and_every_m_step(tmp_path, monkeypatch):
    loader, model, _, _ = build(configure(tmp_path, "HNLMNCL", warm_up_step=2, m_step=3, **PLAIN))
    calls = []
    inner = model.e_step
    monkeypatch.setattr(model, "e_step", lambda: calls.append(epoch) or inner())
    for epoch in range(8):
        model.start_epoch(epoch)
        prototype = model.calculate_loss(next(iter(loader)))[model.loss_part_names.index("prototype")]
        assert (prototype.item() > 0) == (epoch >= 2)
    assert calls == [2, 3, 6]


def test_ncl_assigns_rows_to_the_nearest_centroid(tmp_path):
    _, model, _, _ = build(configure(tmp_path, "HNLMNCL", num_clusters=2, **PLAIN))
    table = torch.cat([torch.zeros(1, 16), torch.randn(20, 16) * 0.01 + 5, torch.randn(20, 16) * 0.01 - 5])
    centroids, clusters = model.run_kmeans(table)
    assert torch.allclose(centroids.norm(dim=1), torch.ones(2))
    assert len(set(clusters[1:21].tolist())) == len(set(clusters[21:].tolist())) == 1
    assert clusters[1] != clusters[21]
    assert (centroids[clusters[1]] > 0).all()


def test_ncl_names_the_extra_when_faiss_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r'HNLMNCL .* faiss.*pip install "recbole-hnlm\[ncl\]"'):
        build(configure(tmp_path, "HNLMNCL", **PLAIN))


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("HNLMSGL", {"type": "XX"}, "type is 'XX', expected one of ED, ND, RW"),
        ("HNLMSGL", {"drop_ratio": 1.0}, "drop_ratio is 1.0, expected at least 0 and below 1"),
        ("SimGCL", {"n_layers": 0}, "n_layers is 0, expected at least 1"),
        ("HNLMXSimGCL", {"contrast_layer": 3}, "contrast_layer is 3, expected 1 to n_layers, 2"),
        ("HNLMNCL", {"num_clusters": 1000}, "num_clusters is 1000, expected 1 to 30"),
        ("HNLMNCL", {"m_step": 0}, "m_step 0, expected at least 1"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, name, keys, message):
    with pytest.raises(ConfigError, match=message):
        build(configure(tmp_path, name, **PLAIN, **keys))
