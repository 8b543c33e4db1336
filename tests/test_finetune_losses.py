import math

import pytest
import torch
from torch.nn import functional

from recbole_hnlm.finetune.losses import hard_negative_loss, in_batch_contrast


def softplus(x):
    return math.log1p(math.exp(x))


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


QUERY = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
POS = torch.tensor([[1.0, 1.0], [0.0, 5.0]])  # cosines with their queries: sqrt(1/2), 1
NEG = torch.tensor([[0.0, 1.0], [-4.0, 0.0]])  # cosines: q_1 with n: 0, -1; q_2 with n: 1, 0


def test_hard_negative_loss_of_two_pairs_by_hand():
    root, t = math.sqrt(0.5), 0.5
    expected = (softplus(-root / t) + softplus(-(root + 1) / t) + softplus(0.0) + softplus(-1 / t)) / 4
    assert hard_negative_loss(QUERY, POS, NEG, t).item() == pytest.approx(expected, rel=1e-6)


def test_in_batch_contrast_by_hand():
    # Candidates e1, e2, -e1; the targets of the two queries are rows 0 and 1.
    candidates, index, t = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0]]), torch.tensor([0, 1]), 0.5
    e = math.exp
    first = -math.log(e(2) / (e(2) + 1 + e(-2)))
    second = -math.log(e(2) / (1 + e(2) + 1))
    found = in_batch_contrast(QUERY, candidates[index], candidates, index, t)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)
    # Query 1 leaves out e2, query 2 leaves out e1 and (in vain) its own target.
    mask = torch.tensor([[False, True, False], [True, True, False]])
    first, second = -math.log(e(2) / (e(2) + e(-2))), -math.log(e(2) / (e(2) + 1))
    found = in_batch_contrast(QUERY, candidates[index], candidates, index, t, mask)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_in_batch_contrast_takes_the_target_from_pos():
    query, pos, candidates, index = random(3, 4), random(3, 4, seed=1), random(5, 4, seed=2), torch.tensor([4, 0, 0])
    expected = []
    for row in range(3):
        rows = candidates.clone()
        rows[index[row]] = pos[row]
        expected.append(
            functional.cross_entropy(functional.cosine_similarity(query[row], rows)[None] / 0.3, index[row : row + 1])
        )
    found = in_batch_contrast(query, pos, candidates, index, 0.3)
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-12)
    grown = pos.clone().requires_grad_()
    in_batch_contrast(query, grown, candidates.detach(), index, 0.3).backward()
    assert (grown.grad.norm(dim=1) > 0).all()


def test_gradients():
    query, pos, neg, candidates = (random(n, 3, seed=n).requires_grad_() for n in (4, 4, 4, 6))
    assert torch.autograd.gradcheck(lambda *parts: hard_negative_loss(*parts, 0.3), (query, pos, neg))
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    index = torch.tensor([0, 5, 2, 2])
    assert torch.autograd.gradcheck(lambda q, p, c: in_batch_contrast(q, p, c, index, 0.3, mask), (query, pos, candidates))


def test_lengths_do_not_matter():
    parts = [random(4, 3, seed=seed) for seed in range(3)]
    scaled = [part * torch.tensor([[0.01], [1.0], [7.0], [1e3]]) for part in parts]
    index = torch.arange(4)
    assert hard_negative_loss(*scaled, 0.1).item() == pytest.approx(hard_negative_loss(*parts, 0.1).item(), rel=1e-12)
    found, expected = (in_batch_contrast(q, p, p, index, 0.1).item() for q, p, _ in (scaled, parts))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
def test_finite_in_bfloat16_at_the_worst_cosines(autocast):
    # Target opposite, interacted item equal: the sigmoid of -2/0.01 is 0 in float32 already.
    query = random(8, 16, dtype=torch.bfloat16).requires_grad_()
    pos, neg = -query.detach(), query.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = hard_negative_loss(query, pos, neg, 0.01)
        contrast = in_batch_contrast(query, pos, torch.cat([pos, neg]), torch.arange(8), 0.01)
    assert loss.dtype == contrast.dtype == torch.float32
    # On the diagonal softplus(200) = 200; elsewhere between 0 and 200.
    assert 200 / 8 <= loss.item() <= 200.01
    assert contrast.item() == pytest.approx(200, abs=1)
    (loss + contrast).backward()
    assert query.grad.isfinite().all()
    assert query.grad.abs().sum() > 0


def test_value_in_bfloat16_is_that_of_its_rounded_input():
    parts = [random(6, 32, seed=seed, dtype=torch.bfloat16) for seed in range(3)]
    exact = hard_negative_loss(*[part.double() for part in parts], 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert hard_negative_loss(*parts, 0.05).item() == pytest.approx(exact.item(), rel=1e-5)
