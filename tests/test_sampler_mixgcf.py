import torch

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.negative_sampler.base import SelectionInputs
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.negative_sampler.mixgcf import SAMPLER, hardest_by_hop, mix_positive

B, K, D, HOPS = 6, 5, 4, 3


def step(pooling, seed=0):
    rng = torch.Generator().manual_seed(seed)
    hops = [tuple(torch.randn(n, D, generator=rng).requires_grad_() for _ in range(HOPS)) for n in (10, 20)]
    ids = [torch.randint(1, high, shape, generator=rng) for high, shape in ((10, (B,)), (20, (B,)), (20, (B, K)))]
    return SelectionInputs(*ids, Propagated.of_hops(*hops, pooling), HNLMSettings())


def test_positive_mixing_by_hand():
    # a = 1/4: (1/4) (4, 0) + (3/4) (0, 8) = (1, 6).
    mixed = mix_positive(torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 8.0]]), torch.tensor([[0.25]]))
    assert mixed.tolist() == [[1.0, 6.0]]


def literally(inputs, pooling, shares):
    """Form every mixed candidate at every layer, as the paper writes it."""
    chosen, propagated = [], inputs.propagated
    for layer in range(HOPS):
        a = shares[layer].unsqueeze(1)  # [B, 1, 1]
        positive = propagated.item_hops[layer][inputs.positives].unsqueeze(1)
        mixed = a * positive + (1 - a) * propagated.item_hops[layer][inputs.candidates]  # [B, K, D]
        query = propagated.user_all if pooling == "mean" else propagated.user_hops[layer]
        best = (query[inputs.users].unsqueeze(1) * mixed).sum(-1).argmax(1)
        chosen.append(mixed[torch.arange(B), best])
    return sum(chosen) / HOPS if pooling == "mean" else torch.cat(chosen, 1)


def test_equals_the_literal_formula_for_both_poolings():
    for pooling in ("mean", "concat"):
        inputs = step(pooling)
        torch.manual_seed(3)
        found = SAMPLER.build(None).select(inputs)
        torch.manual_seed(3)
        shares = [torch.rand(B, 1) for _ in range(HOPS)]
        assert torch.allclose(found.embeddings, literally(inputs, pooling, shares), atol=1e-6)
        assert torch.equal(found.items, hardest_by_hop(inputs.users, inputs.candidates, inputs.propagated)[0])


def test_layers_choose_for_themselves_and_gradient_reaches_positive_and_chosen_items():
    inputs = step("mean")
    chosen = torch.stack(hardest_by_hop(inputs.users, inputs.candidates, inputs.propagated))
    assert (chosen != chosen[0]).any()
    SAMPLER.build(None).select(inputs).embeddings.sum().backward()
    for layer in range(HOPS):
        touched = set(inputs.propagated.item_hops[layer].grad.abs().sum(1).nonzero().squeeze(1).tolist())
        assert touched == set(inputs.positives.tolist()) | set(chosen[layer].tolist())
    # d mixed / d positive = a and d mixed / d negative = 1 - a, so that each pair's gradients sum to 1/L per layer and cell.
    assert torch.allclose(inputs.propagated.item_hops[0].grad.sum(), torch.tensor(B * D / HOPS))
