"""What a source tells the converter about its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_hnlm.prepare.parsing import relaxed_json

__all__ = ["ItemRow", "Record", "ReviewRow", "Source", "joined", "text_of"]

Record = Mapping[str, Any]
ReviewRow = tuple[str, str, str, str, str]
"""Cells user_id, item_id, rating and timestamp (seconds since 1970, UTC), and the review's raw text."""
ItemRow = tuple[str, ...]
"""The cell item_id, then the raw texts of the source's item fields."""


@dataclass(frozen=True)
class Source:
    """One published format.

    Attributes:
        name: value of ``--source``.
        files: which published files it reads, for the help text.
        item_fields: columns of ``.item`` after item_id, in the order of :attr:`item`.
        review: record of the reviews' file -> :data:`ReviewRow`; raises KeyError or RecordError.
        item: record of the metadata's file -> :data:`ItemRow`; raises KeyError or RecordError.
        unusual: line that is no strict JSON -> record; raises ValueError where it cannot be read either.
    """

    name: str
    files: str
    item_fields: tuple[str, ...]
    review: Callable[[Record], ReviewRow]
    item: Callable[[Record], ItemRow]
    unusual: Callable[[bytes], object] = relaxed_json


def text_of(value: object) -> str:
    """Return a text, the parts of a list of texts joined by spaces, or "" for anything else."""
    if isinstance(value, str):
        return value
    return " ".join(part for part in value if isinstance(part, str)) if isinstance(value, list) else ""


def joined(names: object) -> str:
    """Join category names, lists of lists flattened, each name once: ``Toys & Games, Dolls``."""

    def flat(value: object) -> Iterable[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for part in value:
                yield from flat(part)

    return ", ".join(dict.fromkeys(name.strip() for name in flat(names) if name.strip()))
