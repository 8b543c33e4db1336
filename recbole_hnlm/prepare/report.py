"""What a conversion read and wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from recbole_hnlm.prepare.lines import FileTally

__all__ = ["PrepareReport"]


@dataclass
class PrepareReport:
    """Counts of one conversion.

    Attributes:
        folder: where the two files are.
        reviews: counts of the reviews' file.
        meta: counts of the metadata's file.
        interactions: rows of ``.inter``.
        users: distinct users.
        items: distinct items, which are the rows of ``.item``.
        repeated: interactions of a (user, item) pair beyond its first; they are written.
        first_time: earliest time in seconds since 1970.
        last_time: latest time.
        items_without_meta: items without a metadata record; their row of ``.item`` holds the id alone.
        meta_repeated: metadata records beyond an item's first.
        meta_unused: metadata records of items without a review.
        filled: items with a text, by column.
    """

    folder: Path
    reviews: FileTally
    meta: FileTally
    interactions: int = 0
    users: int = 0
    items: int = 0
    repeated: int = 0
    first_time: float = float("inf")
    last_time: float = 0.0
    items_without_meta: int = 0
    meta_repeated: int = 0
    meta_unused: int = 0
    filled: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int | float]:
        """Return the plain figures, for the manifest."""
        names = (
            "interactions",
            "users",
            "items",
            "repeated",
            "first_time",
            "last_time",
            "items_without_meta",
            "meta_repeated",
            "meta_unused",
        )
        return {name: getattr(self, name) for name in names} | {
            "reviews_left_out": self.reviews.left_out,
            "meta_left_out": self.meta.left_out,
        }

    def __str__(self) -> str:
        times = (self.first_time, self.last_time)
        first, last = (datetime.fromtimestamp(time, timezone.utc).date().isoformat() for time in times)
        shares = ", ".join(f"{column} {count / self.items:.1%}" for column, count in self.filled.items())
        return "\n".join(
            [
                f"{self.folder}: {self.interactions:,} interactions of {self.users:,} users and {self.items:,} items, "
                f"{first} to {last}",
                f"repeated user-item pairs: {self.repeated:,} interactions, kept (rm_dup_inter: last keeps the latest)",
                f"items with text: {shares}",
                f"metadata: {self.items_without_meta:,} items have none; passed over {self.meta_repeated:,} repeated records "
                f"and {self.meta_unused:,} of items without a review",
                f"read {self.reviews.path}: {self.reviews}",
                f"read {self.meta.path}: {self.meta}",
            ]
        )
