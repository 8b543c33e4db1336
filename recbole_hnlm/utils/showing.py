"""Values in messages: one bounded line, whatever they are."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["shown"]

_SHOWN_CHARS = 80


class _Repr(reprlib.Repr):
    """``repr`` of bounded length, also of whole numbers beyond Python's limit of digits."""

    def repr_int(self, x: int, level: int) -> str:
        """Write a whole number."""
        return f"a number of {x.bit_length():,} bits" if x.bit_length() > _SHOWN_CHARS * 8 else super().repr_int(x, level)


_repr = _Repr()
_repr.maxlevel, _repr.maxdict, _repr.maxlist, _repr.maxtuple, _repr.maxset = 4, 20, 20, 20, 20
_repr.maxstring = _repr.maxother = _repr.maxlong = _SHOWN_CHARS


def shown(value: Any) -> str:
    """Write a value for a message: one line of at most 80 characters, whatever its size or depth."""
    text = " ".join(_repr.repr(value).split())
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
