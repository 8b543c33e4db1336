"""Intervals of RecBole's filters, such as ``[3,inf)`` or ``(0,1];[3,4)``, read before RecBole does.

RecBole 1.2.1 (``Dataset._parse_intervals_str``) warns of what it cannot read, leaves it out and filters on: rows are then
dropped arbitrarily or not at all.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from recbole_hnlm.utils.values import shown

__all__ = ["INTERVAL_FORM", "Interval", "interval_problem", "parse_intervals"]

INTERVAL_FORM = "an interval such as [3,inf), (0,5] or, for several, [1,2];[4,5]"
_PART = re.compile(r"([\[(])([^,\[\]()]+),([^,\[\]()]+)([\])])")


class Interval(NamedTuple):
    """One interval: its bounds, and whether each of them belongs to it."""

    low: float
    high: float
    has_low: bool
    has_high: bool


def parse_intervals(value: object) -> list[Interval]:
    """Read one or several intervals joined by ``;``, as RecBole does; lists and tuples of two numbers are read as written.

    Raises:
        ValueError: what is wrong, as a phrase.
    """
    return [_parse_part(part.strip()) for part in str(value).split(";")]


def _parse_part(text: str) -> Interval:
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is not an interval")
    opening, left, right, closing = match.groups()
    try:
        low, high = float(left), float(right)
    except ValueError:
        raise ValueError(f"{shown(text)} has a bound that is not a number") from None
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"{shown(text)} has a bound that is not a number")
    interval = Interval(low, high, opening == "[", closing == "]")
    if low > high:
        raise ValueError(f"{shown(text)} begins above its end")
    if low == high and not (interval.has_low and interval.has_high):
        raise ValueError(f"{shown(text)} holds no number")
    return interval


def interval_problem(key: str, value: object) -> list[str]:
    """Return the problem of an interval under a key as a line, or nothing; null is no filter."""
    if value is None:
        return []
    try:
        parse_intervals(value)
    except ValueError as error:
        return [f"{key}: {error}, expected {INTERVAL_FORM}"]
    return []
