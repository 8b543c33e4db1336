"""Mixing of 64-bit integers, the same formula for arrays and for compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["mix64"]


def mix64(values: Any) -> Any:
    """Return SplitMix64's finaliser of uint64 values, element by element: every input bit reaches every output bit.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, section 5. Written with
    operations that numba compiles too.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
