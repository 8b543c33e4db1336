"""Amazon reviews, 2023 edition (Y. Hou et al., arXiv 2403.03952): ``<Category>.jsonl.gz`` and ``meta_<Category>.jsonl.gz``.

Published fields: reviews ``user_id, parent_asin, rating, timestamp`` (milliseconds) ``, title, text``; metadata
``parent_asin, title, description`` (a list) ``, categories`` (one path) ``, main_category, store, details``. An item is a
``parent_asin``: colours and sizes of one product share it. Source: https://amazon-reviews-2023.github.io/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from recbole_hnlm.prepare.columns import seconds_cells
from recbole_hnlm.prepare.escaping import RecordError, id_cell
from recbole_hnlm.prepare.source import ItemRow, Record, Source, item_reader, joined, review_reader, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AMAZON_2023"]


def _seconds(milliseconds: Sequence[object]) -> list[str]:
    if set(map(type, milliseconds)) != {int}:
        raise RecordError("a time that is not a whole number of milliseconds")
    return seconds_cells([time / 1000 for time in cast("Sequence[int]", milliseconds)])


def _item_row(record: Record) -> ItemRow:
    details = record.get("details")
    brand = text_of(details.get("Brand")) if isinstance(details, dict) else ""
    return (
        id_cell(record["parent_asin"]),
        text_of(record.get("title")),
        joined(record.get("categories")) or text_of(record.get("main_category")),
        brand or text_of(record.get("store")),
        text_of(record.get("description")),
    )


AMAZON_2023 = Source(
    name="amazon2023",
    files="<Category>.jsonl.gz, meta_<Category>.jsonl.gz",
    item_fields=("title", "categories", "brand", "description"),
    review=review_reader(user="user_id", item="parent_asin", rating="rating", time="timestamp", text="text", seconds=_seconds),
    item=item_reader(_item_row),
)
