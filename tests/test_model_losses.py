import math

import pytest
import torch
from recbole.model.loss import BPRLoss, EmbLoss

from recbole_hnlm.model.losses import (
    bpr_loss,
    contrast_loss,
    embedding_regularization,
    hinge_loss,
    info_nce,
    mix_negative,
)


def test_bpr_by_hand():
    # sigmoid(log 3) = 3/4 and sigmoid(0) = 1/2, so the mean is -(log 3/4 + log 1/2) / 2 = log(8/3) / 2.
    value = bpr_loss(torch.tensor([math.log(3.0), 2.0]), torch.tensor([0.0, 2.0]))
    assert value.item() == pytest.approx(math.log(8 / 3) / 2, abs=1e-6)


def test_bpr_equals_recbole_in_value_and_gradient():
    difference = torch.linspace(-30, 30, 61, dtype=torch.float64)
    ours, theirs = difference.clone().requires_grad_(), difference.clone().requires_grad_()
    zero = torch.zeros_like(difference)
    bpr_loss(ours, zero).backward()
    BPRLoss()(theirs, zero).backward()
    assert torch.allclose(bpr_loss(difference, zero), BPRLoss()(difference, zero), atol=1e-12)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-9)


@pytest.mark.parametrize("extreme", [1e4, -1e4, 3e38])
def test_losses_are_finite_at_extreme_scores(extreme):
    score = torch.tensor([extreme], requires_grad=True)
    value = bpr_loss(score, torch.zeros(1))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(score.grad).all()
    assert value.item() <= -math.log(1e-10) + 1e-4
    vectors = torch.tensor([[extreme, 0.0]])
    assert torch.isfinite(contrast_loss(vectors, -vectors, vectors, 1e-3)).all()


def test_hinge_by_hand():
    # relu(1 - 0.5 + 0.3) = 0.8 and relu(0 - 2 + 0.3) = 0: mean 0.4.
    value = hinge_loss(torch.tensor([0.5, 2.0]), torch.tensor([1.0, 0.0]), margin=0.3)
    assert value.item() == pytest.approx(0.4)


def test_contrast_by_hand():
    # cos(u, i) = 1, cos(u, h) = 0, t = 1/2: -log(e^2 / (e^2 + 1)) = log(1 + e^-2). Lengths do not matter.
    u, i, h = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert contrast_loss(u, i, h, 0.5).item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)
    literal = torch.exp(torch.tensor(2.0)) / (torch.exp(torch.tensor(2.0)) + 1)
    assert contrast_loss(u, i, h, 0.5).item() == pytest.approx(-math.log(literal), abs=1e-6)
    assert contrast_loss(u, h, i, 0.5).item() == pytest.approx(math.log1p(math.exp(2)), abs=1e-6)


def test_info_nce_by_hand():
    # Orthonormal pairs, t = 1: each row of S is (1, 0), so each cross entropy is log(1 + e^-1); shuffled: log(1 + e).
    eye = torch.eye(2)
    assert info_nce(eye, 4 * eye, 1.0).item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)
    assert info_nce(eye, eye.flip(0), 1.0).item() == pytest.approx(math.log1p(math.e), abs=1e-6)


def test_info_nce_reads_both_directions():
    # S = [[1, 0], [1, 0]]: rows give log(1+e^-1) and log(1+e); columns give log 2 each.
    left, right = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    by_rows = (math.log1p(math.exp(-1)) + math.log1p(math.e)) / 2
    assert info_nce(left, right, 1.0).item() == pytest.approx((by_rows + math.log(2)) / 2, abs=1e-6)


def test_mixing_by_hand():
    # ||e_j|| = 5, h points along x: a = 0.4 gives 0.4 * (5, 0) + 0.6 * (3, 4) = (3.8, 2.4), whatever the length of h.
    e_j = torch.tensor([[3.0, 4.0]], requires_grad=True)
    for length in (1e-3, 1.0, 1e3):
        h = torch.tensor([[length, 0.0]], requires_grad=True)
        mixed = mix_negative(e_j, h, 0.4)
        assert torch.allclose(mixed, torch.tensor([[3.8, 2.4]]))
    assert torch.equal(mix_negative(e_j, h, 0.0), e_j)
    mixed.sum().backward()
    assert torch.allclose(e_j.grad, torch.full((1, 2), 0.6))
    assert h.grad[0, 1] != 0


def test_mixing_survives_a_zero_vector():
    h = torch.zeros(1, 2, requires_grad=True)
    mixed = mix_negative(torch.ones(1, 2), h, 0.5)
    mixed.sum().backward()
    assert torch.allclose(mixed, torch.full((1, 2), 0.5))
    assert torch.isfinite(h.grad).all()


@pytest.mark.parametrize("require_pow", [False, True])
def test_regularization_by_hand_and_as_recbole(require_pow):
    # Frobenius norms 5 and 13 over B = 2 rows: (5 + 13) / 2 = 9, or (25 + 169) / (2 * 2) = 48.5.
    rows = (torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 5.0], [12.0, 0.0]]))
    value = embedding_regularization(rows, require_pow)
    assert value.item() == pytest.approx(48.5 if require_pow else 9.0)
    assert value.item() == pytest.approx(EmbLoss()(*rows, require_pow=require_pow).item())
