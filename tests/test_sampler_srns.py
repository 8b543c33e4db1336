import numpy as np
import pytest
import torch
from scipy import stats

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.negative_sampler.srns import SAMPLER, renew_memory, variance_choice
from recbole_hnlm.utils.errors import ArtifactError


def test_choice_by_hand():
    # Deviations over two epochs: |.2 - .6| / 2 = .2 and 0. Now .5 and .6: with weight w the first wins once .5 + .2 w > .6.
    likelihood, history = torch.tensor([[0.5, 0.6]]), torch.tensor([[[0.2, 0.4]], [[0.6, 0.4]]])
    assert variance_choice(likelihood, history, 0.0).tolist() == [1]
    assert variance_choice(likelihood, history, 0.4).tolist() == [1]
    assert variance_choice(likelihood, history, 0.6).tolist() == [0]
    assert variance_choice(likelihood, torch.empty(0), 9.0).tolist() == [1]


def test_renewal_draws_in_proportion_and_without_repetition():
    items, logits = (
        torch.tensor([[7, 8, 9, 8]]).repeat(40_000, 1),
        torch.log(torch.tensor([[1.0, 2.0, 1.0, 2.0]])).repeat(40_000, 1),
    )
    noise = -torch.empty(40_000, 4).exponential_(generator=torch.Generator().manual_seed(0)).log()
    one = renew_memory(items, logits, noise, 1).squeeze(1)
    # The second 8 counts once, so that the shares are 1/4, 1/2, 1/4.
    counts = np.bincount(one.numpy(), minlength=10)[7:]
    assert stats.chisquare(counts, np.array([0.25, 0.5, 0.25]) * 40_000).pvalue > 1e-3
    assert renew_memory(items, logits, noise, 3).sort(1).values.unique(dim=0).tolist() == [[7, 8, 9]]
    # Two of three: 8 is left out with probability 1/4 * 1/3 twice over, that is 1/6.
    left_out = (renew_memory(items, logits, noise, 2) != 8).all(1).sum().item()
    assert stats.binomtest(left_out, 40_000, 1 / 6).pvalue > 1e-3


def make(users=(1, 2, 1), k=2, **keys):
    settings = HNLMSettings(negative_sampler="srns", num_candidates=k, srns_warmup_epochs=2, **keys)
    selector = SAMPLER.build(SamplerContext(settings, 4, 30, (1,), lambda: None, None, torch.device("cpu"), 0))
    users = torch.tensor(users)
    positives = torch.full_like(users, 29)
    propagated = Propagated.of_outputs(torch.ones(4, 1), torch.arange(30.0).unsqueeze(1) / 30)
    return selector, lambda candidates: SelectionInputs(users, positives, torch.tensor(candidates), propagated, settings)


def test_an_empty_memory_takes_the_first_rows_candidates_of_its_user():
    selector, inputs = make()
    chosen = selector.select(inputs([[3, 4], [5, 6], [7, 8]])).items
    assert chosen.tolist() == [4, 6, 4]  # scores rise with the id; user 1's memory holds 3 and 4
    pool = selector.memory()["pool"]
    assert set(pool[1].tolist()) == {3, 4}
    assert pool[3].tolist() == [0, 0]


def test_memory_keeps_high_scores_and_the_choice_comes_from_it():
    selector, inputs = make(srns_temperature=1e-4)
    selector.select(inputs([[3, 4], [5, 6], [7, 8]]))
    assert selector.select(inputs([[20, 21], [1, 2], [9, 9]])).items.tolist() == [4, 6, 4]
    assert sorted(selector.memory()["pool"][1].tolist()) == [20, 21]
    assert sorted(selector.memory()["pool"][2].tolist()) == [5, 6]


def test_spread_over_epochs_decides_once_warmed_up():
    selector, inputs = make(users=(1,), srns_alpha=50.0)
    flat, steep = torch.arange(30.0).unsqueeze(1) / 30, torch.arange(30.0).unsqueeze(1) / 30
    steep[3] = 3.0  # the score of item 3 moves, that of item 4 stays
    step = inputs([[3, 4]])
    selector.start_epoch(0, lambda: (torch.ones(4, 1), flat))
    assert selector.select(step).items.tolist() == [4]  # weight 0 in epoch 0
    selector.start_epoch(1, lambda: (torch.ones(4, 1), steep))
    assert selector.select(step).items.tolist() == [3]


def test_five_epochs_are_kept_and_survive_a_checkpoint():
    selector, inputs = make()
    selector.select(inputs([[3, 4], [5, 6], [7, 8]]))
    assert set(selector.memory()) == {"pool"}
    for epoch in range(7):
        selector.start_epoch(epoch, lambda epoch=epoch: (torch.full((4, 1), float(epoch)), torch.zeros(30, 1)))
    memory = {name: tensor.clone() for name, tensor in selector.memory().items()}
    assert memory["users"][:, 0, 0].tolist() == [2, 3, 4, 5, 6]
    other, _ = make()
    other.recall(memory)
    assert all(torch.equal(other.memory()[name], memory[name]) for name in memory)
    with pytest.raises(ArtifactError, match=r"memory of srns has shape \(4, 2\), expected \(4, 5\)"):
        make(k=5)[0].recall(memory)
