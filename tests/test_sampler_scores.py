"""Samplers that rank candidates by score: dns_mn and ahns, by hand."""

import pytest
import torch

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.negative_sampler.ahns import adaptive_choice
from recbole_hnlm.negative_sampler.dns import candidate_scores
from recbole_hnlm.negative_sampler.dns_mn import one_of_the_hardest
from recbole_hnlm.utils.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_candidate_scores_are_inner_products(dtype):
    rng = torch.Generator().manual_seed(0)
    user_all, item_all = (torch.randn(n, 8, generator=rng).to(dtype) for n in (20, 50))
    users, candidates = torch.randint(1, 20, (2500,), generator=rng), torch.randint(1, 50, (2500, 3), generator=rng)
    scores = candidate_scores(users, candidates, user_all.requires_grad_(), item_all)
    assert not scores.requires_grad
    assert torch.allclose(scores, torch.einsum("bd,bkd->bk", user_all[users], item_all[candidates]), atol=1e-5)


def test_dns_mn_by_hand():
    # Descending: 30 (.9), 10 (.5), 40 (.2), 20 (.1). With N = 3, draws in [0, 1/3), [1/3, 2/3), [2/3, 1) pick each.
    scores = torch.tensor([[0.5, 0.1, 0.9, 0.2]]).repeat(4, 1)
    candidates = torch.tensor([[10, 20, 30, 40]]).repeat(4, 1)
    draws = torch.tensor([0.0, 0.34, 0.67, 0.9999999])
    assert one_of_the_hardest(scores, candidates, 3, draws).tolist() == [30, 10, 40, 40]
    assert one_of_the_hardest(scores, candidates, 1, draws).tolist() == [30] * 4
    assert one_of_the_hardest(scores, candidates, 4, torch.tensor([0.8] * 4)).tolist() == [20] * 4


def test_dns_mn_needs_as_many_candidates():
    with pytest.raises(ConfigError, match="dns_top is 9, expected at most num_candidates, 8"):
        validate_settings({"negative_sampler": "dns_mn", "dns_top": 9})
    with pytest.raises(ConfigError, match="negative_sampler ahns needs num_candidates >= 2, got 1"):
        validate_settings({"negative_sampler": "ahns", "num_candidates": 1})


def test_ahns_by_hand():
    # beta (s + alpha)^(p + 1) with alpha 1, beta 2, p -2 is 2 / (s + 1): wanted 2, 1 and 0.5 for s = 0, 1, 3.
    positive = torch.tensor([0.0, 1.0, 3.0])
    scores = torch.tensor([[1.9, 1.1, 0.4]]).repeat(3, 1)
    assert adaptive_choice(positive, scores, 1.0, 2.0, -2.0).tolist() == [0, 1, 2]
    # p = -3: 2 / (s + 1)^2 is 2, 0.5, 0.125.
    assert adaptive_choice(positive, scores, 1.0, 2.0, -3.0).tolist() == [0, 2, 2]


def test_ahns_takes_the_hardest_for_a_positive_below_minus_alpha():
    assert adaptive_choice(torch.tensor([-1.0, -5.0]), torch.tensor([[-9.0, 3.0]] * 2), 1.0, 0.1, -2.0).tolist() == [1, 1]
    with pytest.raises(ConfigError, match="ahns_p: Input should be less than -1"):
        validate_settings({"ahns_p": -1.0})
