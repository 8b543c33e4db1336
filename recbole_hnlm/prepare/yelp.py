"""Yelp's academic dataset: ``yelp_academic_dataset_review.json`` and ``yelp_academic_dataset_business.json``.

Published fields: reviews ``user_id, business_id, stars, date`` (``2016-03-09 12:30:45``, in older editions the day alone) ``,
text``; businesses ``business_id, name, city, categories`` (one text with commas, in older editions a list, or null). Dates
carry no zone and are read as UTC. Source: https://www.yelp.com/dataset/documentation/main
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from recbole_hnlm.prepare.columns import seconds_cells
from recbole_hnlm.prepare.escaping import RecordError, id_cell
from recbole_hnlm.prepare.source import ItemRow, Record, Source, item_reader, joined, review_reader, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["YELP"]


def _seconds(date: object) -> int:
    try:
        return int(datetime.fromisoformat(date).replace(tzinfo=timezone.utc).timestamp())  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise RecordError("a date that is not like 2016-03-09 12:30:45") from error


def _seconds_of_dates(dates: Sequence[object]) -> list[str]:
    return seconds_cells(list(map(_seconds, dates)))


def _item_row(record: Record) -> ItemRow:
    return (
        id_cell(record["business_id"]),
        text_of(record.get("name")),
        joined(record.get("categories")),
        text_of(record.get("city")),
    )


YELP = Source(
    name="yelp",
    files="yelp_academic_dataset_review.json, yelp_academic_dataset_business.json",
    item_fields=("title", "categories", "city"),
    review=review_reader(
        user="user_id", item="business_id", rating="stars", time="date", text="text", seconds=_seconds_of_dates
    ),
    item=item_reader(_item_row),
)
