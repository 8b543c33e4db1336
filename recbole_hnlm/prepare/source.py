"""What a source says about its records, for the converter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from recbole_hnlm.prepare.columns import id_cells, number_cells, seconds_cells
from recbole_hnlm.prepare.parsing import relaxed_json

__all__ = ["Columns", "ItemRow", "Reader", "Record", "Source", "item_reader", "joined", "review_reader", "text_of"]

Record = Mapping[str, Any]
ItemRow = tuple[str, ...]
"""The cell item_id, then the raw texts of the source's item fields."""
Columns = tuple[Sequence[str], ...]
"""Columns of equal length, one entry per record."""
Reader = Callable[[Sequence[Record]], Columns]
"""Reads at least one record into columns; raises KeyError, TypeError or RecordError where one of them cannot be used."""


@dataclass(frozen=True)
class Source:
    """One published format.

    Attributes:
        name: value of ``--source``.
        files: which published files it reads, for the help text.
        item_fields: columns of ``.item`` after item_id, in the order of :attr:`item`.
        review: records of the reviews' file -> cells user_id, item_id, rating and timestamp (seconds since 1970, UTC), and
            the reviews' raw texts; see :func:`review_reader`.
        item: records of the metadata's file -> cells item_id, and the raw texts of the item fields; see :func:`item_reader`.
        unusual: a line that is not strict JSON -> record; raises ValueError where it cannot be read either.
    """

    name: str
    files: str
    item_fields: tuple[str, ...]
    review: Reader
    item: Reader
    unusual: Callable[[bytes], object] = relaxed_json


def review_reader(
    *, user: str, item: str, rating: str, time: str, text: str, seconds: Callable[[Sequence[Any]], list[str]] = seconds_cells
) -> Reader:
    """Return the reader of reviews with these fields; all but the text have to be there.

    Args:
        user: field of the user's id.
        item: field of the item's id.
        rating: field of the rating.
        time: field of the time.
        text: field of the review's text.
        seconds: values of the time's field -> cells in seconds since 1970; raises RecordError.
    """
    needed = itemgetter(user, item, rating, time)

    def read(records: Sequence[Record]) -> Columns:
        users, items, ratings, times = zip(*map(needed, records), strict=True)
        texts: list[Any] = [record.get(text) for record in records]
        if set(map(type, texts)) != {str}:
            texts = list(map(text_of, texts))
        return id_cells(users), id_cells(items), number_cells(ratings), seconds(times), texts

    return read


def item_reader(row: Callable[[Record], ItemRow]) -> Reader:
    """Return the reader of metadata that gives ``row`` of each record."""

    def read(records: Sequence[Record]) -> Columns:
        return tuple(zip(*map(row, records), strict=True))

    return read


def text_of(value: object) -> str:
    """Return a text, the parts of a list of texts joined by spaces, or "" for anything else."""
    if isinstance(value, str):
        return value
    return " ".join(part for part in value if isinstance(part, str)) if isinstance(value, list) else ""


def _flat(names: object) -> Iterable[str]:
    if isinstance(names, str):
        yield names
    elif isinstance(names, list):
        for part in names:
            yield from _flat(part)


def joined(names: object) -> str:
    """Join category names, lists of lists flattened, each name once: ``Toys & Games, Dolls``."""
    if not isinstance(names, list) or set(map(type, names)) != {str}:  # not the single path that most records have
        names = list(_flat(names))
    return ", ".join(filter(None, dict.fromkeys(map(str.strip, names))))
