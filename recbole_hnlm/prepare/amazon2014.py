"""Amazon reviews, 2014 edition (J. McAuley, UCSD): ``reviews_<Category>.json.gz`` and ``meta_<Category>.json.gz``.

Published fields: reviews ``reviewerID, asin, overall, unixReviewTime`` (seconds) ``, reviewText, summary``; metadata
``asin, title, description, brand, categories`` (a list of paths), each line a Python literal. Source:
https://jmcauley.ucsd.edu/data/amazon/index_2014.html
"""

from __future__ import annotations

from recbole_hnlm.prepare.escaping import id_cell
from recbole_hnlm.prepare.parsing import python_literal
from recbole_hnlm.prepare.source import ItemRow, Record, Source, item_reader, joined, review_reader, text_of

__all__ = ["AMAZON_2014", "review_columns"]


review_columns = review_reader(user="reviewerID", item="asin", rating="overall", time="unixReviewTime", text="reviewText")
"""Reads reviews; the 2018 edition has the same fields."""


def _item_row(record: Record) -> ItemRow:
    return (
        id_cell(record["asin"]),
        text_of(record.get("title")),
        joined(record.get("categories")),
        text_of(record.get("brand")),
        text_of(record.get("description")),
    )


AMAZON_2014 = Source(
    name="amazon2014",
    files="reviews_*.json.gz, meta_*.json.gz",
    item_fields=("title", "categories", "brand", "description"),
    review=review_columns,
    item=item_reader(_item_row),
    unusual=python_literal,
)
