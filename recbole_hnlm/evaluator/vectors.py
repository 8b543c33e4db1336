"""How vectors lie to one another, and numbers in brief: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COSINE_EDGES", "described", "histogram", "row_cosines"]

COSINE_EDGES = np.linspace(-1.0, 1.0, 41)
"""Ends of the bins of a cosine's histogram, each .05 wide."""

_QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def row_cosines(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the cosine of each row of one table with the same row of another, float64 ``[n]``; NaN where a row is zero.

    Args:
        left: ``[n, H]``.
        right: ``[n, H]``.
    """
    one, other = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.divide((one * other).sum(axis=1), lengths, out=np.full(len(one), np.nan), where=lengths > 0)


def described(values: NDArray[np.float64]) -> dict[str, float | int | None]:
    """Return ``n``, ``mean``, ``std`` (ddof = 1), ``q05``, ``q25``, ``median``, ``q75`` and ``q95``; NaN is left out."""
    known = values[~np.isnan(values)]
    found: dict[str, float | int | None] = {"n": len(known), "mean": None, "std": None, **dict.fromkeys(_QUANTILES)}
    if len(known):
        found["mean"] = float(known.mean())
        found |= {name: float(np.quantile(known, share)) for name, share in _QUANTILES.items()}
    if len(known) > 1:
        found["std"] = float(known.std(ddof=1))
    return found


def histogram(cosines: NDArray[np.float64]) -> list[float]:
    """Return the share of the known values in each bin of :data:`COSINE_EDGES`; they sum to 1, or to 0 without a value."""
    known = np.clip(cosines[~np.isnan(cosines)], -1.0, 1.0)
    counts, _ = np.histogram(known, COSINE_EDGES)
    return [float(count) for count in counts / max(len(known), 1)]
