import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.sampler import CandidateSampler, alias_table
from recbole_hnlm.negative_sampler.dns import hardest_candidates
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.registry import get_negative_sampler, negative_sampler_names

USERS, ITEMS = 50, 200


def interactions(seed=0, n=2000):
    rng = np.random.default_rng(seed)
    return rng.integers(1, USERS, n), rng.integers(1, ITEMS, n)


def make(seed=0, **options):
    return CandidateSampler(USERS, ITEMS, {"train": interactions()}, seed=seed, **options)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_never_a_positive_and_never_padding(distribution):
    users, items = interactions()
    positives = set(zip(users.tolist(), items.tolist(), strict=True))
    asked = np.arange(1, USERS).repeat(40)
    drawn = make(distribution=distribution).sample_candidates(asked, 16).numpy()
    assert drawn.shape == (len(asked), 16)
    assert drawn.min() >= 1
    assert drawn.max() < ITEMS
    assert not positives & set(zip(asked.repeat(16).tolist(), drawn.ravel().tolist(), strict=True))


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_distribution_is_exact(distribution):
    users, items = interactions()
    drawn = make(distribution=distribution, alpha=0.5, seed=3).sample_candidates(np.full(20_000, 7), 10).numpy().ravel()
    weights = np.bincount(items, minlength=ITEMS) ** 0.5 if distribution == "popularity" else np.ones(ITEMS)
    weights[0] = 0
    weights[items[users == 7]] = 0
    allowed = np.flatnonzero(weights)
    observed = np.bincount(drawn, minlength=ITEMS)
    assert observed.sum() == observed[allowed].sum()
    expected = weights[allowed] / weights.sum() * len(drawn)
    assert stats.chisquare(observed[allowed], expected).pvalue > 1e-3


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_distribution_of_a_user_with_two_items_left(distribution):
    # 3,997 of 4,000 items are taken, so that most draws end in the enumeration of the free ones.
    n_items, free = 4001, np.array([5, 1234, 4000])
    held = np.setdiff1d(np.arange(1, n_items), free)
    users = np.r_[np.ones(len(held)), [2, 2, 2, 2], np.full(3, 3)].astype(int)
    items = np.r_[held, free, [5], [4000, 4000, 4000]]
    sampler = CandidateSampler(4, n_items, {"train": (users, items)}, distribution=distribution, alpha=1.0)
    observed = np.bincount(sampler.sample_candidates(np.full(300, 1), 20).numpy().ravel(), minlength=n_items)
    shares = np.array([2, 1, 4]) / 7 if distribution == "popularity" else np.ones(3) / 3
    assert observed[free].sum() == 6000
    assert stats.chisquare(observed[free], shares * 6000).pvalue > 1e-3


def test_uniform_pairs_of_draws_are_independent():
    drawn = make().sample_candidates(np.full(60_000, 3), 2).numpy()
    even = drawn % 2
    table = np.histogram2d(even[:, 0], even[:, 1], bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_seed_fixes_the_draws_and_calls_differ():
    asked = np.arange(1, USERS)
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    calls = [first.sample_candidates(asked, 4) for _ in range(2)]
    assert torch.equal(calls[0], again.sample_candidates(asked, 4))
    assert not torch.equal(calls[0], calls[1])
    assert not torch.equal(calls[0], other.sample_candidates(asked, 4))


def test_state_resumes_the_draws():
    asked, sampler = np.arange(1, USERS), make(seed=1)
    sampler.sample_candidates(asked, 4)
    state = sampler.state_dict()
    expected = sampler.sample_candidates(asked, 4)
    resumed = make(seed=99)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.sample_candidates(asked, 4), expected)


def test_threads_do_not_change_the_draws():
    asked = np.random.default_rng(0).integers(1, USERS, 30_000)
    threads, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(make(seed=5).sample_candidates(asked, 3))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_recbole_layout_is_blocks():
    asked = np.arange(1, USERS)
    blocks = make(seed=4).sample_by_user_ids(asked, None, 3)
    rows = make(seed=4).sample_candidates(asked, 3)
    assert blocks.shape == (3 * len(asked),)
    for r in range(len(blocks)):
        assert blocks[r] == rows[r % len(asked), r // len(asked)]


def test_phases_are_cumulative():
    sampler = CandidateSampler(3, 6, {"train": ([1, 2], [1, 2]), "valid": ([1], [2]), "test": ([1], [3])})
    assert sampler.phase == "train"
    assert [sampler.set_phase(p).used_ids[1] for p in ("train", "valid", "test")] == [{1}, {1, 2}, {1, 2, 3}]
    assert set(sampler.set_phase("test").sample_candidates([1] * 50, 2).unique().tolist()) == {4, 5}
    assert sampler.used_ids[1] == {1}
    with pytest.raises(DataError, match="phase 'later' is unknown to the sampler, expected one of train, valid, test"):
        sampler.set_phase("later")


def test_a_user_with_everything_is_refused():
    with pytest.raises(DataError, match=r"1 users \(internal id 1 first\) interacted with all 3 items"):
        CandidateSampler(3, 4, {"train": ([1, 1, 1, 2], [1, 2, 3, 1])})
    # Item 3 has no count: popularity can only draw 1 and 2, and user 1 holds both.
    with pytest.raises(DataError, match="all 2 items that popularity sampling can draw"):
        CandidateSampler(3, 4, {"train": ([1, 1, 2], [1, 2, 1])}, distribution="popularity")
    with pytest.raises(DataError, match="expected uniform or popularity"):
        CandidateSampler(3, 4, {"train": ([1], [1])}, distribution="dns")
    with pytest.raises(DataError, match=r"user ids 1\.\.9 were asked for, expected 0\.\.2"):
        CandidateSampler(3, 4, {"train": ([1], [1])}).sample_candidates([1, 9], 1)


def test_alias_table_is_the_distribution():
    weights = np.array([0.0, 1, 2, 3, 10, 0, 0.5])
    prob, alias = alias_table(weights)
    shares = prob.astype(float).copy()
    np.add.at(shares, alias, 1 - prob.astype(float))
    assert np.allclose(shares / len(weights), weights / weights.sum(), atol=1e-6)
    with pytest.raises(DataError, match="found no training interaction"):
        alias_table(np.zeros(3))


def test_works_where_no_cache_can_be_written(tmp_path):
    code = (
        "from numba.core.caching import CacheImpl\n"
        "CacheImpl._locator_classes = []  # no folder that could be written\n"
        "from recbole_hnlm.data.sampler import CandidateSampler\n"
        "print(CandidateSampler(2, 3, {'train': ([1], [1])}).sample_candidates([1], 2).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[2, 2]]", done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dns_picks_the_argmax_and_the_first_of_a_tie(dtype):
    rng = torch.Generator().manual_seed(0)
    user_all, item_all = (torch.randn(n, 8, generator=rng).to(dtype) for n in (USERS, ITEMS))
    users, candidates = torch.randint(1, USERS, (3000,), generator=rng), torch.randint(1, ITEMS, (3000, 8), generator=rng)
    scores = torch.einsum("bd,bkd->bk", user_all[users], item_all[candidates])
    chosen = hardest_candidates(users, candidates, user_all, item_all)
    assert torch.equal(chosen, candidates.gather(1, scores.argmax(1, keepdim=True)).squeeze(1))
    item_all[:] = item_all[1].clone()
    assert torch.equal(hardest_candidates(users, candidates, user_all, item_all), candidates[:, 0])


def test_registry_knows_every_name_and_names_the_nearest():
    assert {"uniform", "popularity", "dns"} < set(negative_sampler_names())
    assert not {"base", "hops", "__init__"} & set(negative_sampler_names())  # helpers are no samplers
    for name in negative_sampler_names():
        sampler = get_negative_sampler(name)
        assert sampler.distribution == ("popularity" if name == "popularity" else "uniform")
        assert sampler.needs_candidates == (name not in {"uniform", "popularity", "in_batch"})
    with pytest.raises(ConfigError, match="did you mean popularity"):
        get_negative_sampler("popular")
    with pytest.raises(ConfigError, match=r"negative_sampler: should be one of ahns, dens, dns, .*; did you mean dns\?"):
        validate_settings({"negative_sampler": "dnns"})


@pytest.mark.parametrize("options", [{}, {"distribution": "popularity"}, {"allowed": np.arange(ITEMS) % 2 == 1}])
def test_numbered_rows_are_those_of_the_call(options):
    asked, sampler = np.random.default_rng(0).integers(1, USERS, 500), make(seed=6, **options)
    calls = [sampler.sample_candidates(asked, 5) for _ in range(3)]
    numbers = np.random.default_rng(1).permutation(500)
    state = sampler.state_dict()
    for call, expected in enumerate(calls):
        found = sampler.sample_numbered(asked[numbers], 5, numbers, call)
        assert torch.equal(found, expected[numbers])
    assert sampler.state_dict() == state
    with pytest.raises(DataError, match=r"user ids 1\.\.99 were asked for"):
        sampler.sample_numbered([1, 99], 5, [0, 1], 0)


def test_draws_are_those_of_the_first_release():
    # Any change here changes the numbers of every run at a fixed seed.
    drawn = make(seed=1).sample_candidates([1, 2, 3, 3], 3)
    assert drawn.tolist() == [[85, 124, 21], [100, 46, 56], [193, 12, 70], [159, 62, 20]]


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_only_allowed_items_are_drawn_and_in_proportion(distribution):
    users, items = interactions()
    allowed = np.random.default_rng(2).random(ITEMS) < 0.2
    allowed[0] = True  # the padding id is never drawn, whatever the mask says
    sampler = make(distribution=distribution, alpha=0.5, seed=3, allowed=allowed)
    drawn = sampler.sample_candidates(np.full(20_000, 7), 10).numpy().ravel()
    weights = np.bincount(items, minlength=ITEMS) ** 0.5 if distribution == "popularity" else np.ones(ITEMS)
    weights[0] = 0
    weights[~allowed] = 0
    weights[items[users == 7]] = 0
    possible = np.flatnonzero(weights)
    observed = np.bincount(drawn, minlength=ITEMS)
    assert observed.sum() == observed[possible].sum()
    assert stats.chisquare(observed[possible], weights[possible] / weights.sum() * len(drawn)).pvalue > 1e-3


def test_users_who_hold_all_allowed_items_are_refused():
    allowed = np.array([False, True, True, False])
    with pytest.raises(DataError, match=r"1 users \(internal id 1 first\) interacted with all 2 items"):
        CandidateSampler(3, 4, {"train": ([1, 1, 2], [1, 2, 1])}, allowed=allowed)
    with pytest.raises(DataError, match="none of the 3 items may be drawn"):
        CandidateSampler(3, 4, {"train": ([1], [1])}, allowed=np.zeros(4, dtype=bool))
