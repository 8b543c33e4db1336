"""What a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["closest", "did_you_mean"]

# Comparing takes time that grows with the product of the lengths.
_LONGEST = 60


def closest(word: object, known: Iterable[str], count: int = 1) -> list[str]:
    """Return the known names most like a word, case aside, best first; at most ``count``, maybe none."""
    by_folded = {name.casefold(): name for name in sorted(set(known) - {word})}
    near = difflib.get_close_matches(str(word)[:_LONGEST].casefold(), by_folded, n=count, cutoff=0.5)
    return [by_folded[name] for name in near]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``; did you mean X?``, or an empty string when nothing is near."""
    near = closest(word, known)
    return f"; did you mean {near[0]}?" if near else ""
