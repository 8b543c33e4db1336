"""Text for a page and for CSV files, whoever wrote it: pure functions."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["csv_text", "number", "percent", "plural", "safe_csv", "seconds_text", "signed", "tidy", "value_text"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_REPLACEMENT = "\ufffd"


def tidy(text: str, limit: int = 2000) -> str:
    """Return a text that shows as itself: characters that would reorder or hide others are replaced, the rest is cut.

    Directional overrides and isolates (U+202A to U+202E, U+2066 to U+2069 and the like), control characters, lone surrogates
    and noncharacters become U+FFFD; letters of scripts that run from right to left stay. What goes beyond ``limit`` characters
    is counted.
    """
    rest = len(text) - limit
    shown = "".join(_REPLACEMENT if _is_hidden(character) else character for character in text[:limit])
    return shown if rest <= 0 else f"{shown}… ({rest:,} more characters)"


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cf":
        return unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return category == "Cs" or (category == "Cc" and character not in "\t\n") or (ord(character) & 0xFFFE) == 0xFFFE


def _safe_field(value: Any) -> str:
    """Return a field that no spreadsheet takes for a formula; numbers stay numbers."""
    text = "" if value is None else str(value)
    if text.startswith(_FORMULA_STARTS):
        try:
            float(text)
        except ValueError:
            return f"'{text}"
    return text


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Write CSV in which no field is a formula: one that begins with ``= + - @`` or white space gets an apostrophe (OWASP)."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_safe_field(value) for value in row] for row in rows])
    return stream.getvalue()


def safe_csv(text: str) -> str:
    """Return CSV text again with :func:`csv_text`'s protection."""
    return csv_text(csv.reader(io.StringIO(text)))


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write ``1 seed``, ``3 seeds``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with so many decimals; ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """Write a number with its sign, a true minus where it is negative."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float, digits: int = 1) -> str:
    """Write a share in percent, without a sign."""
    return f"{100 * abs(share):.{digits}f} %"


def seconds_text(seconds: float) -> str:
    """Write a duration for people: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def value_text(value: Any) -> str:
    """Write a value of a configuration as compact JSON."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
