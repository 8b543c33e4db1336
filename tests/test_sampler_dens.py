import math

import pytest
import torch

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs
from recbole_hnlm.negative_sampler.dens import SAMPLER, FactorGates, disentangling_loss, factor_scores
from recbole_hnlm.negative_sampler.hops import Propagated


def test_factor_scores_by_hand():
    # e_u = (1, 2), e_j = (3, 4), g = (1/3, 1/4): g * e_j = (1, 1); w = 0: e_j - (1, 1) = (2, 3), score 2 + 6 = 8.
    # w = 1: -(1, 1), score -3. w = 1/2: (1.5, 2) - (1, 1) = (.5, 1), score 2.5.
    args = (torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1 / 3, 1 / 4]]]))
    for progress, score in ((0.0, 8.0), (1.0, -3.0), (0.5, 2.5)):
        assert factor_scores(*args, progress).item() == pytest.approx(score, abs=1e-6)


def test_gates_by_hand():
    # With all weights and biases 0 every gate is 1/2; with a bias of log 3 in both maps of the positive, sigmoid(2 log 3).
    gates = FactorGates(2)
    for parameter in gates.parameters():
        torch.nn.init.zeros_(parameter)
    e_u, e_i = torch.tensor([[5.0, 6.0]]), torch.tensor([[2.0, 4.0]])
    assert gates.relevant_positive(e_u, e_i).tolist() == [[1.0, 2.0]]
    assert gates.relevant_negative(e_u, e_i).tolist() == [[1.0, 2.0]]
    for linear in (gates.of_item, gates.of_user):
        torch.nn.init.constant_(linear.bias, math.log(3))
    assert torch.allclose(gates.relevant_positive(e_u, e_i), e_i * 0.9)


def test_loss_by_hand():
    # User 1-d of value 1, so that scores are the parts: s_i^r = 2, s_i^ir = 1, s_j^r = 0, s_j^ir = 3.
    parts = [torch.tensor([[value]]) for value in (2.0, 1.0, 0.0, 3.0)]
    expected = sum(math.log1p(math.exp(term)) for term in (1 - 2, 0 - 3, 0 - 2, 1 - 3)) / 4
    found = disentangling_loss(torch.ones(1, 1), tuple(parts[:2]), tuple(parts[2:]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def make(pooling="mean", sizes=(4, 4)):
    rng = torch.Generator().manual_seed(0)
    hops = [tuple(torch.randn(n, size, generator=rng).requires_grad_() for size in sizes) for n in (10, 20)]
    ids = [torch.randint(1, high, shape, generator=rng) for high, shape in ((10, (6,)), (20, (6,)), (20, (6, 5)))]
    settings = HNLMSettings(dens_warmup_epochs=4, dens_gamma=0.5)
    context = SamplerContext(settings, 10, 20, sizes, lambda: None, None, torch.device("cpu"), 0)
    return SAMPLER.build(context), SelectionInputs(*ids, Propagated.of_hops(*hops, pooling), settings)


@pytest.mark.parametrize("epoch", [0, 2, 9])
@pytest.mark.parametrize(("pooling", "sizes"), [("mean", (4, 4)), ("concat", (4, 3))])
def test_choice_equals_the_literal_formula(epoch, pooling, sizes):
    selector, inputs = make(pooling, sizes)
    selector.start_epoch(epoch, None)
    found = selector.select(inputs)
    progress, chosen = min(1, epoch / 4), []
    for layer, size in enumerate(sizes):
        gates, (users, items) = (
            selector.gates[str(size)],
            (inputs.propagated.user_hops[layer], inputs.propagated.item_hops[layer]),
        )
        for row in range(6):
            e_u, e_i = users[inputs.users[row]], items[inputs.positives[row]]
            relevant = e_i * torch.sigmoid(gates.of_item(e_i) + gates.of_user(e_u))
            scores = []
            for item in inputs.candidates[row]:
                own = items[item] * torch.sigmoid(gates.of_negative(items[item]) + gates.of_positive(relevant))
                scores.append(float(e_u @ ((1 - progress) * items[item] - own)))
            chosen.append(items[inputs.candidates[row][scores.index(max(scores))]])
    layers = [torch.stack(chosen[:6]), torch.stack(chosen[6:])]
    expected = sum(layers) / 2 if pooling == "mean" else torch.cat(layers, 1)
    assert torch.equal(found.embeddings, expected)


def test_gates_learn_from_the_loss_and_not_from_the_ranking():
    selector, inputs = make()
    found = selector.select(inputs)
    found.embeddings.sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in selector.parameters())
    assert all(layer.grad.abs().sum() > 0 for layer in inputs.propagated.item_hops)
    found.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in selector.parameters())
