"""Paired tests, effect sizes, Holm's correction and bootstrap intervals: pure functions over numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["PairedTest", "bootstrap_interval", "holm", "mean_std", "paired_test"]

# Up to this many differences with ties, all signs are enumerated; the normal approximation is poor there, and SciPy's exact
# distribution does not allow ties.
_ENUMERATED = 12
_EXACT = 50
_CELLS_PER_BLOCK = 2**24  # of counts of users in resamples: 128 MiB


@dataclass(frozen=True)
class PairedTest:
    """Two-sided paired tests of ``first - second`` and their effect sizes.

    Attributes:
        n: number of pairs.
        difference: mean of ``first - second``; positive where the first is larger.
        t_p: p of the paired t-test; None with fewer than 2 pairs.
        wilcoxon_p: p of the Wilcoxon signed-rank test; None with fewer than 2 pairs.
        d_z: Cohen's d of the differences, mean / standard deviation (ddof = 1); None where that deviation is 0 and the
            mean is not, or with fewer than 2 pairs.
        rank_biserial: (R+ - R-) / (R+ + R-) of the signed ranks without zeros, from -1 to 1 (Kerby, Comprehensive Psychology
            2014); 0 where every difference is 0.
    """

    n: int
    difference: float
    t_p: float | None
    wilcoxon_p: float | None
    d_z: float | None
    rank_biserial: float | None


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (ddof = 1); the latter is None for a single value."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p: ``max over j <= i of min(1, (m - j) p_(j))``, j from 0 by ascending p.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979, section 3 (as adjusted p-values).

    Args:
        p_values: of one family of comparisons; None is left out of the family and stays None.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted


def paired_test(
    first: Sequence[float] | npt.NDArray[np.float64], second: Sequence[float] | npt.NDArray[np.float64]
) -> PairedTest:
    """Compare two methods on the same users, or on the same seeds.

    Args:
        first: ``[n]`` values of one method.
        second: ``[n]`` values of the other, of the same users or seeds in the same order.

    Raises:
        ValueError: different lengths, or none.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(f"expected two equally long rows of values, got shapes {one.shape} and {other.shape}")
    differences = one - other
    # Values that are equal on paper differ by rounding of the subtraction.
    differences[np.isclose(one, other, rtol=1e-12, atol=1e-15)] = 0.0
    mean = float(differences.mean())
    if len(differences) < 2:
        return PairedTest(len(differences), mean, None, None, None, None)
    if not differences.any():
        return PairedTest(len(differences), 0.0, 1.0, 1.0, 0.0, 0.0)
    spread = float(differences.std(ddof=1))
    is_constant = spread <= 1e-9 * abs(mean)
    ranked = differences[differences != 0]
    ranks = stats.rankdata(np.abs(ranked)) * np.sign(ranked)
    return PairedTest(
        n=len(differences),
        difference=mean,
        t_p=0.0 if is_constant else float(stats.ttest_1samp(differences, 0.0).pvalue),
        wilcoxon_p=_wilcoxon(ranked, ranks),
        d_z=None if is_constant else mean / spread,
        rank_biserial=float(ranks.sum() / np.abs(ranks).sum()),
    )


def _wilcoxon(differences: npt.NDArray[np.float64], signed_ranks: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p of the signed ranks of differences without zeros: exact where that is possible."""
    n = len(differences)
    has_ties = len(np.unique(np.abs(differences))) < n
    if n == 1:
        return 1.0
    if has_ties and n <= _ENUMERATED:
        result = stats.permutation_test(
            (signed_ranks,), np.sum, permutation_type="samples", n_resamples=math.inf, vectorized=True, alternative="two-sided"
        )
        return float(result.pvalue)
    method = "approx" if has_ties or n > _EXACT else "exact"
    return float(stats.wilcoxon(differences, alternative="two-sided", method=method).pvalue)


def bootstrap_interval(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], resamples: int, seed: int, level: float = 0.95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return percentile bootstrap intervals of ``sum_u values / sum_u weights``; users are resampled whole.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. Resamples whose weights sum to 0 are
    left out.

    Args:
        values: ``[n, M]``, M quantities of n users.
        weights: ``[n]``, not negative; ones make the ratio a mean.
        resamples: how many; 0 makes no interval.
        seed: of the resampling: equal arguments give equal intervals.
        level: share of the resamples inside.

    Returns:
        Lower and upper ends, ``[M]`` each; None without resamples, with fewer than 2 users, or where no resample has weight.
    """
    n = len(values)
    if resamples == 0 or n < 2:
        return None
    generator, table = np.random.default_rng(seed), np.column_stack([values, weights])
    found = []
    block = max(1, min(resamples, _CELLS_PER_BLOCK // n))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        found.append(np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) @ table)
    sums = np.concatenate(found)  # [resamples, M + 1]
    ratios = sums[sums[:, -1] > 0]
    if not len(ratios):
        return None
    low, high = np.quantile(ratios[:, :-1] / ratios[:, -1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
