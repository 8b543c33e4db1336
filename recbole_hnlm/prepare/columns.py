"""Whole columns of cells at once: what :mod:`~recbole_hnlm.prepare.escaping` gives for each value, at a fraction of the time.

Almost every value of a dump can be written as it is. A few passes over a column's characters find those that may not be;
only those go through the functions for one value, which remain the only definition of a cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.prepare.escaping import (
    END_OF_TIME,
    MAX_TEXT_CHARS,
    MISSING_WORDS,
    RATING_CELLS,
    id_cell,
    number_cell,
    seconds_cell,
    text_cell,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["id_cells", "number_cells", "seconds_cells", "text_cells"]

_LONGEST_MISSING = max(map(len, MISSING_WORDS))
_PRINTABLE = bytes(range(ord(" "), ord("~") + 1))
_PLAIN_ID = _PRINTABLE.replace(b'"', b"")
_BETWEEN = "\0"  # separates the texts of a column; a text that contains it is found because the count is off


def id_cells(values: Sequence[object]) -> list[str]:
    """Return :func:`~recbole_hnlm.prepare.escaping.id_cell` of each value.

    Raises:
        RecordError: a value that is not an id; the column must be read value by value.
    """
    try:
        joined = "".join(values)  # type: ignore[arg-type]  # what is no text raises
    except TypeError:
        return list(map(id_cell, values))
    shortest = min(map(len, values), default=0)  # type: ignore[arg-type]
    if (
        shortest > _LONGEST_MISSING
        and joined.isascii()
        and not joined.encode().translate(None, _PLAIN_ID)
        # A word that means "missing" followed by underscores would have at least so many of them.
        and "_" * (shortest - _LONGEST_MISSING) not in joined
    ):
        return list(values)  # type: ignore[arg-type]
    return list(map(id_cell, values))


def number_cells(values: Sequence[Any]) -> list[str]:
    """Return :func:`~recbole_hnlm.prepare.escaping.number_cell` of each value.

    Raises:
        RecordError: a value that is not a finite number.
    """
    if set(map(type, values)) <= {float, int}:  # a bool would find the cell of 0 or 1
        try:
            return list(map(RATING_CELLS.__getitem__, values))
        except KeyError:
            pass  # a number that is not a usual rating
    return list(map(number_cell, values))


def seconds_cells(values: Sequence[Any]) -> list[str]:
    """Return :func:`~recbole_hnlm.prepare.escaping.seconds_cell` of each value.

    Raises:
        RecordError: a value that is not a time in seconds.
    """
    if set(map(type, values)) == {int} and min(values) >= 0 and max(values) < END_OF_TIME:
        return list(map(str, values))
    return list(map(seconds_cell, values))


def _rows_to_mend(texts: Sequence[str]) -> NDArray[np.int64] | range:
    """Return the places of all texts that text_cell might change, in ascending order; some others may be among them."""
    # Each text lies between two separators, the first and the last one too: one rule serves starts, ends and middles.
    codes = np.frombuffer(_BETWEEN.join(["", *texts, ""]).encode(), dtype=np.uint8)  # [bytes]
    marks = np.flatnonzero(codes == 0)
    if len(marks) != len(texts) + 1:
        return range(len(texts))
    odd = (codes - np.uint8(ord(" "))) > ord("~") - ord(" ")  # uint8 wraps around: controls, and all that is not ASCII
    odd[marks] = False
    odd |= (codes == ord("&")) | (codes == ord("<"))
    blank = codes == ord(" ")
    blank[marks] = True
    odd[:-1] |= blank[:-1] & blank[1:]  # two spaces in a row, one at an end, or an empty text
    rows = np.searchsorted(marks, np.flatnonzero(odd), side="right") - 1
    lengths = np.diff(marks) - 1
    by_length = (lengths <= _LONGEST_MISSING) | (lengths > MAX_TEXT_CHARS) | (codes[marks[:-1] + 1] == ord('"'))
    by_length[rows] = True
    return np.flatnonzero(by_length)


def text_cells(texts: Sequence[str]) -> list[str]:
    """Return :func:`~recbole_hnlm.prepare.escaping.text_cell` of each text."""
    cells = list(texts)
    for row in _rows_to_mend(cells):
        cells[row] = text_cell(cells[row])
    return cells
