"""SDRLightGCN: whitening, the loss by hand and its gradient, and that it pulls rankings towards texts."""

import math

import pytest
import torch
from test_model_rivals import build_rival

from recbole_hnlm.model.sdrlightgcn import distribution_loss, whitened
from recbole_hnlm.utils.errors import ConfigError


def test_whitened_texts_have_unit_variance_on_shared_axes():
    rng = torch.Generator().manual_seed(0)
    spread = torch.diag(torch.tensor([5.0, 1.0, 0.1]))
    users, items = torch.randn(30, 3, generator=rng) @ spread + 7, torch.randn(50, 3, generator=rng) @ spread
    first, second = whitened(users, items, 2)
    both = torch.cat([first, second])
    assert first.shape == (30, 2)
    assert torch.allclose(both.t() @ both / 80, torch.eye(2), atol=1e-5)
    assert torch.allclose(torch.stack([first.mean(dim=0), second.mean(dim=0)]), torch.zeros(2, 2), atol=1e-5)
    # The same text, seen from its side's mean, has the same coordinates on both sides.
    moved = users.mean(dim=0) + (items[:1] - items.mean(dim=0))
    again = whitened(torch.cat([users, users.mean(dim=0) * 2 - moved, moved]), items, 2)
    assert torch.allclose(again[0][-1], again[1][0], atol=1e-4)


def test_the_loss_by_hand():
    # Two items; t = 1/2. User 1's text has cosines 1 and 0: p = softmax(2, 0) = (.8808, .1192); user 2's text says nothing.
    user_texts, item_texts = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    users, items = torch.tensor([[0.0, 4.0], [1.0, 1.0]]), torch.eye(2)
    high = 1 / (1 + math.exp(-2))
    entropy = -high * math.log(high) - (1 - high) * math.log(1 - high)
    # q of user 1 is (1 - high, high), of user 2 (1/2, 1/2); the second weighs least, .1.
    first = (1 - entropy / math.log(2)) * -(high * math.log(1 - high) + (1 - high) * math.log(high))
    found = distribution_loss(users, items, user_texts, item_texts, 0.5)
    assert found.item() == pytest.approx((first + 0.1 * math.log(2)) / 2, rel=1e-5)


def test_the_gradient_and_where_it_vanishes():
    rng = torch.Generator().manual_seed(0)
    users, items, user_texts, item_texts = (torch.randn(n, 4, generator=rng, dtype=torch.float64) for n in (3, 6, 3, 6))
    users.requires_grad_()
    items.requires_grad_()
    assert torch.autograd.gradcheck(lambda u, i: distribution_loss(u, i, user_texts, item_texts, 0.3), (users, items))
    # The cross-entropy is least where both distributions are equal.
    distribution_loss(users, items, users.detach(), items.detach(), 0.3).backward()
    assert users.grad.abs().max() < 1e-12


def test_it_draws_rankings_towards_texts_and_leaves_out_what_has_none(tmp_path):
    loader, model = build_rival(tmp_path, "SDRLightGCN", users_without=(3,), items_without=(5, 7), sdr_weight=2.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    batch = next(iter(loader))
    losses = []
    for _ in range(60):
        parts = dict(zip(model.loss_part_names, model.calculate_loss(batch), strict=True))
        losses.append(parts["sdr"].item())
        optimizer.zero_grad()
        parts["sdr"].backward()
        if not losses[1:]:
            assert not model.item_embedding.weight.grad.isnan().any()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert len(model._whitened[1]) == model.n_items - 3
    # A batch without a user who has text adds nothing.
    users = torch.tensor([3, 3])
    assert model.auxiliary_terms(model.training_propagation(False), users, users)["sdr"] == 0


def test_wrong_keys_are_refused(tmp_path):
    for key, value in (("sdr_weight", -1), ("sdr_temperature", 0)):
        with pytest.raises(ConfigError, match=f"{key} is {value}, expected a number"):
            build_rival(tmp_path, "SDRLightGCN", **{key: value})
