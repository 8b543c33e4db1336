"""Cells of atomic files that RecBole's loader and :mod:`recbole_hnlm.data.atomic_text` read back alike.

RecBole reads with ``pd.read_csv(engine="python")``: a cell that *starts* with ``"`` opens a quoted field, a carriage return
ends a line, some words mean "missing" (an id among them drops its rows), and a field beyond 131,072 characters is an
error of Python's csv module. Our reader takes cells as they are and strips texts. One leading space takes the meaning
from a quote or a missing-value word for the first, and is stripped by the second; RecBole drops it too, because it splits
texts at spaces. Ids keep every character, hence a reversible mark at their end instead.
"""

from __future__ import annotations

import html
import math
import re

from recbole_hnlm.data.atomic_text import clean_text, cut_text

__all__ = [
    "END_OF_TIME",
    "MAX_TEXT_CHARS",
    "MISSING_WORDS",
    "RATING_CELLS",
    "RecordError",
    "id_cell",
    "number_cell",
    "seconds_cell",
    "strip_markup",
    "text_cell",
]

MAX_TEXT_CHARS = 131_000
"""Longest text of a cell; Python's csv module, which RecBole reads with, refuses fields beyond 131,072 characters."""

#: What pandas takes for a missing value, and RecBole's name of its padding id.
MISSING_WORDS = frozenset(
    {
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
        "[PAD]",
    }
)
_LONGEST_MISSING = max(map(len, MISSING_WORDS))
END_OF_TIME = 4_102_444_800
"""2100-01-01 in seconds since 1970; milliseconds of any date since 1973 lie beyond it."""

_UNSAFE_ID = re.compile(r'^"|[\x00-\x1f\x7f]')
_TAGS = re.compile(
    r"</?(?:a|b|big|blockquote|br|center|div|em|font|h[1-6]|hr|i|iframe|img|input|li|ol|p|pre|s|script|small|span|strike|strong|"
    r"style|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul|video)\b[^<>]*>",
    re.IGNORECASE,
)
RATING_CELLS = {value / 2: f"{value / 2:g}" for value in range(11)}
"""Cells of the usual ratings, 0 to 5 in halves."""


class RecordError(ValueError):
    """A record that lacks what an interaction or an item needs; the message is counted, hence free of the record's values."""


def id_cell(value: object) -> str:
    """Return the cell of a user's or an item's id.

    Every character is kept. RecBole drops the rows of ids such as ``NA`` or ``null``, so that those (and, to stay
    reversible, the same words followed by underscores) get one underscore more: ``NA`` -> ``NA_``, ``NA_`` -> ``NA__``.

    Raises:
        RecordError: no text (or integer), an empty one, or one that an atomic file cannot hold (control characters, or a
            quotation mark at the start).
    """
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise RecordError("an id that is not a text")
    if value.isalnum() and len(value) > _LONGEST_MISSING:
        return value
    if not value:
        raise RecordError("an empty id")
    if _UNSAFE_ID.search(value):
        raise RecordError("an id with a control character or a quotation mark at its start")
    word = value.rstrip("_")
    return f"{value}_" if word and word in MISSING_WORDS else value


def number_cell(value: object) -> str:
    """Return the shortest decimal form of a finite number, ``5`` for ``5.0``.

    Raises:
        RecordError: anything else.
    """
    if (type(value) is float or type(value) is int) and math.isfinite(value):
        return RATING_CELLS.get(value) or f"{value:.10g}"
    raise RecordError("a rating that is not a number")


def seconds_cell(value: float) -> str:
    """Return the cell of a time in seconds since 1970 (UTC), milliseconds kept.

    Raises:
        RecordError: no number, or a time before 1970 or after 2100.
    """
    if type(value) is int:
        if 0 <= value < END_OF_TIME:
            return str(value)
    elif type(value) is float and 0 <= value < END_OF_TIME:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    raise RecordError("a time that is not a number of seconds between 1970 and 2100")


def strip_markup(text: str) -> str:
    """Resolve HTML entities, once, and replace HTML tags by spaces; other angle brackets stay."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAGS.sub(" ", text)
    return text


def text_cell(raw: str) -> str:
    """Return the cell of a text: markup stripped, white space and controls collapsed, cut at :data:`MAX_TEXT_CHARS`.

    Both readers give ``clean_text(strip_markup(raw))`` back (as words, in RecBole), cut where it is longer.
    """
    text = strip_markup(raw)
    # Quick ways to what clean_text gives: among printable characters the space is the only white space.
    if not text.isprintable() or "  " in text or text[:1] == " " or text[-1:] == " ":
        words = " ".join(text.split())
        text = words if words.isprintable() else clean_text(text)
    text = cut_text(text, MAX_TEXT_CHARS)
    return f" {text}" if text.startswith('"') or (text and text in MISSING_WORDS) else text
