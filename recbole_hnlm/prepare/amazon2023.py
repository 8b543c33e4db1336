"""Amazon reviews, 2023 edition (Y. Hou et al., arXiv 2403.03952): ``<Category>.jsonl.gz`` and ``meta_<Category>.jsonl.gz``.

Published fields: reviews ``user_id, parent_asin, rating, timestamp`` (milliseconds) ``, title, text``; metadata
``parent_asin, title, description`` (a list) ``, categories`` (one path) ``, main_category, store, details``. An item is a
``parent_asin``: colours and sizes of one product share it. Source: https://amazon-reviews-2023.github.io/
"""

from __future__ import annotations

from recbole_hnlm.prepare.escaping import RecordError, id_cell, number_cell, seconds_cell
from recbole_hnlm.prepare.source import ItemRow, Record, ReviewRow, Source, joined, text_of

__all__ = ["AMAZON_2023"]


def _review_row(record: Record) -> ReviewRow:
    milliseconds = record["timestamp"]
    if type(milliseconds) is not int:
        raise RecordError("a time that is no whole number of milliseconds")
    return (
        id_cell(record["user_id"]),
        id_cell(record["parent_asin"]),
        number_cell(record["rating"]),
        seconds_cell(milliseconds / 1000),
        text_of(record.get("text")),
    )


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
    review=_review_row,
    item=_item_row,
)
