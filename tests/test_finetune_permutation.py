import itertools
import tracemalloc
from unittest.mock import Mock

import numpy as np
import pytest
from scipy import stats

from recbole_hnlm.finetune.permutation import EpochSampler, FeistelPermutation


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 100, 1023, 1024, 1025, 50_000])
@pytest.mark.parametrize("seed", [0, 1, -5, 2**70])
def test_is_a_bijection(n, seed):
    images = FeistelPermutation(n, seed)(np.arange(n))
    assert np.array_equal(np.sort(images), np.arange(n))
    assert images.dtype == np.int64


def test_an_image_does_not_depend_on_what_else_is_asked():
    permutation = FeistelPermutation(1000, 3)
    images = permutation(np.arange(1000))
    some = np.array([999, 0, 17, 17])
    assert np.array_equal(permutation(some), images[some])
    assert np.array_equal(FeistelPermutation(1000, 3)(some), images[some])
    assert permutation(np.empty(0, dtype=np.int64)).shape == (0,)


def test_bounds():
    with pytest.raises(IndexError, match=r"indices -1\.\.5 were asked for, expected 0\.\.4"):
        FeistelPermutation(5, 0)(np.array([-1, 5]))
    for n in (0, 2**62 + 1):
        with pytest.raises(ValueError, match="expected 1 to"):
            FeistelPermutation(n, 0)
    huge = FeistelPermutation(2**62, 0)(np.array([0, 1, 2**62 - 1]))
    assert len(set(huge.tolist())) == 3
    assert 0 <= huge.min() <= huge.max() < 2**62


def test_all_orders_of_three_are_equally_likely():
    orders = [tuple(FeistelPermutation(3, seed)(np.arange(3)).tolist()) for seed in range(3000)]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_places_and_neighbours_are_spread_evenly():
    n, images = 101, np.stack([FeistelPermutation(101, seed)(np.arange(101)) for seed in range(2000)])
    # Where an index goes, and how far apart two neighbours end up: uniform over seeds.
    for column in (0, 50, 100):
        assert stats.chisquare(np.bincount(images[:, column], minlength=n)).pvalue > 1e-3
    gaps = (images[:, 1] - images[:, 0]) % n
    assert stats.chisquare(np.bincount(gaps, minlength=n)[1:]).pvalue > 1e-3


def test_epochs_differ_and_repeat():
    sampler = EpochSampler(20_000, seed=4)
    orders = {}
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        orders[epoch] = list(sampler)
        assert sorted(orders[epoch]) == list(range(20_000))
        assert list(sampler) == orders[epoch]
    assert len(sampler) == 20_000
    assert all(isinstance(index, int) for index in orders[0][:10])
    # Two random orders agree in one place on average.
    for first, second in itertools.combinations(orders.values(), 2):
        assert np.equal(first, second).sum() < 12
    assert list(EpochSampler(20_000, seed=4)) == orders[0]
    assert np.equal(list(EpochSampler(20_000, seed=5)), orders[0]).sum() < 12


def test_the_named_dataset_follows_the_epoch():
    dataset = Mock()
    EpochSampler(3, 0, dataset).set_epoch(7)
    dataset.set_epoch.assert_called_once_with(7)


def test_ten_million_rows_take_no_memory():
    n, seen = 10_000_000, 0
    tracemalloc.start()
    iterator = iter(EpochSampler(n, seed=1))
    for chunk in iter(lambda: list(itertools.islice(iterator, 256)), []):
        seen += len(chunk)
        if seen >= 500_000:  # tracing every integer is slow; the rest goes through the same permutation by chunks
            break
    permutation = FeistelPermutation(n, 1)
    for start in range(0, n, 8192):
        seen += len(permutation(np.arange(start, min(start + 8192, n))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen >= n
    assert peak < 2**21  # a list of the indices would take 80 MB and more
