import numpy as np
import torch

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.negative_sampler.in_batch import SAMPLER, first_admissible


def test_first_admissible_by_hand():
    items = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    admissible = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    assert first_admissible(items, admissible, torch.tensor([10, 20, 30])).tolist() == [2, 4, 30]


def make(users, items, k=64):
    tokens = np.array([str(n) for n in range(12)])
    training = TrainingInteractions(tokens[:4], tokens, np.array(users), np.array(items))
    settings = HNLMSettings(num_candidates=k)
    context = SamplerContext(settings, 4, 12, (1,), lambda: training, None, torch.device("cpu"), 0)
    return SAMPLER.build(context), settings


def test_negatives_are_items_of_the_batch_that_the_user_does_not_hold():
    # User 1 holds 1, 2, 3; user 2 holds 3, 4; user 3 holds 5. The batch's items are 1, 2, 3, 4, 5, and 5 twice.
    selector, settings = make([1, 1, 1, 2, 2, 3], [1, 2, 3, 3, 4, 5])
    users, positives = torch.tensor([1, 1, 1, 2, 2, 3, 3]), torch.tensor([1, 2, 3, 3, 4, 5, 5])
    propagated = Propagated.of_outputs(torch.zeros(4, 1), torch.zeros(12, 1))
    inputs = SelectionInputs(users, positives, torch.full((7, 1), 11), propagated, settings)
    torch.manual_seed(0)
    drawn = [selector.select(inputs) for _ in range(300)]
    assert all(found.counts == {"negatives from the batch": 7} for found in drawn)
    items = torch.stack([found.items for found in drawn])
    assert set(items[:, :3].unique().tolist()) == {4, 5}
    assert set(items[:, 3:5].unique().tolist()) == {1, 2, 5}
    assert set(items[:, 5:].unique().tolist()) == {1, 2, 3, 4}
    # For user 1 the batch offers 4 once and 5 twice.
    share = (items[:, :3] == 5).float().mean().item()
    assert abs(share - 2 / 3) < 0.06


def test_a_batch_without_any_takes_the_loaders_candidate_and_says_so():
    selector, settings = make([1, 1], [1, 2])
    propagated = Propagated.of_outputs(torch.zeros(4, 1), torch.zeros(12, 1))
    inputs = SelectionInputs(torch.tensor([1, 1]), torch.tensor([1, 2]), torch.tensor([[7], [8]]), propagated, settings)
    found = selector.select(inputs)
    assert found.items.tolist() == [7, 8]
    assert found.counts == {"negatives from the batch": 0}
