"""Amazon reviews, 2018 edition (J. Ni, J. Li, J. McAuley, EMNLP 2019): ``<Category>.json.gz`` and ``meta_<Category>.json.gz``.

Published fields: reviews as in 2014; metadata ``asin, title, description`` (a list) ``, brand, category`` (one path). Some
titles hold a script of the scraped page, told by its ``getTime``; those are left empty. Source: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/
"""

from __future__ import annotations

from recbole_hnlm.prepare.amazon2014 import review_columns
from recbole_hnlm.prepare.escaping import id_cell
from recbole_hnlm.prepare.source import ItemRow, Record, Source, item_reader, joined, text_of

__all__ = ["AMAZON_2018"]


def _item_row(record: Record) -> ItemRow:
    title = text_of(record.get("title"))
    return (
        id_cell(record["asin"]),
        "" if "getTime" in title else title,
        joined(record.get("category")),
        text_of(record.get("brand")),
        text_of(record.get("description")),
    )


AMAZON_2018 = Source(
    name="amazon2018",
    files="<Category>.json.gz, meta_<Category>.json.gz",
    item_fields=("title", "categories", "brand", "description"),
    review=review_columns,
    item=item_reader(_item_row),
)
