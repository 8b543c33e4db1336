"""Text of RecBole's atomic files, read by raw token.

RecBole's own loader splits ``token_seq`` columns into words, lets an unbalanced quote swallow lines and turns tokens such
as ``NA`` into missing values. Text is therefore read here: one line is one row, fields are split at the separator and
nothing else is interpreted, but for the keys that :class:`AtomicFormat` holds.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "COLUMN_GUESSES",
    "AtomicFormat",
    "ItemText",
    "ReadReport",
    "clean_text",
    "cut_text",
    "read_item_texts",
    "read_reviews",
    "resolve_columns",
]

#: Column names tried in this order, case ignored, when a setting names none.
COLUMN_GUESSES: dict[str, tuple[str, ...]] = {
    "title": ("title", "name", "movie_title", "item_name", "product_name", "business_name", "track_name", "book_title"),
    "categories": ("categories", "category", "class", "genre", "genres", "tags"),
    "city": ("city", "location"),
    "description": ("description", "desc", "summary", "overview", "details"),
    "review": ("review", "review_text", "reviewtext", "text", "comment"),
}

_ZERO_WIDTH_JOINER = "\u200d"
# Controls (C0, DEL, C1) and Unicode's own line and paragraph separators become spaces; joiners and direction marks stay.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_SEPARATING = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")


@dataclass(frozen=True)
class AtomicFormat:
    """RecBole's keys of atomic files, which both readers obey.

    ``load_col`` is no part of it: text columns are normally not among the columns that RecBole loads, and are read here all
    the same. A text column that ``unload_col`` names is not read. ``alias_of_user_id`` and ``alias_of_item_id`` need nothing
    here either: RecBole adds the tokens of alias columns to those of the id column, by which texts are looked up.

    Attributes:
        encoding: of the files; None is UTF-8, with or without a byte order mark.
        field_separator: between the columns.
        seq_separator: between the tokens of a ``token_seq`` column. Its text joins them by ``", "``, or by a space where the
            separator is white space.
        unload_col: suffix of a file (``item``, ``inter``) to the columns that are not read, or to ``"*"``, which RecBole
            takes for none.
    """

    encoding: str | None = None
    field_separator: str = "\t"
    seq_separator: str = " "
    unload_col: Mapping[str, list[str] | str] | None = None

    @classmethod
    def from_config(cls, config: Any) -> AtomicFormat:
        """Take the keys from RecBole's configuration."""
        return cls(config["encoding"], config["field_separator"], config["seq_separator"], config["unload_col"])


@dataclass(frozen=True)
class ItemText:
    """What an item's row says; an absent column or an empty cell is ``""``."""

    title: str = ""
    categories: str = ""
    city: str = ""
    description: str = ""

    @property
    def has_text(self) -> bool:
        """Whether anything in it says what the item is (a city alone does not)."""
        return bool(self.title or self.categories or self.description)


@dataclass
class ReadReport:
    """Counts of one file.

    Attributes:
        rows: data rows, blank lines not counted.
        short_rows: rows with fewer fields than the header; the absent fields count as empty.
        long_rows: rows with more fields than the header; the surplus at the end is dropped.
        undecodable_rows: rows with bytes that are not of the file's encoding; each such byte reads as U+FFFD.
        duplicate_rows: rows of an item (or pair) that already has one; the first one counts.
        ambiguous: training pairs whose review is not used, because the file has further rows of the pair that may belong
            to another split.
        without_row: wanted items that have no row.
    """

    rows: int = 0
    short_rows: int = 0
    long_rows: int = 0
    undecodable_rows: int = 0
    duplicate_rows: int = 0
    ambiguous: int = 0
    without_row: int = 0
    columns: dict[str, str | None] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{item.name} {getattr(self, item.name):,}" for item in fields(self) if item.name != "columns"]
        named = [f"{role}={column or '-'}" for role, column in self.columns.items()]
        return ", ".join([*counts[:1], *(count for count in counts[1:] if not count.endswith(" 0")), *named])


def clean_text(raw: str) -> str:
    """Collapse white space, control characters and Unicode line separators into single spaces."""
    return _SEPARATING.sub(" ", raw).strip()


def _continues(text: str, position: int) -> bool:
    """Whether the character at ``position`` belongs to the character before it."""
    here, before = text[position], text[position - 1]
    if _ZERO_WIDTH_JOINER in {here, before}:
        return True
    if "\U0001f3fb" <= here <= "\U0001f3ff":  # skin tones
        return True
    return unicodedata.category(here) in {"Mn", "Mc", "Me"}


def _inside_flag(text: str, position: int) -> bool:
    """Whether ``position`` splits a flag, which is two regional indicators counted from the start of their run."""
    start = position
    while start > 0 and "\U0001f1e6" <= text[start - 1] <= "\U0001f1ff":
        start -= 1
    return (position - start) % 2 == 1 and "\U0001f1e6" <= text[position] <= "\U0001f1ff"


def cut_text(text: str, max_chars: int) -> str:
    """Cut a text to at most ``max_chars`` characters without splitting a visible character.

    A base letter keeps its combining marks, an emoji its joined parts and skin tone, a flag both halves. Only a single
    visible character that is itself longer than ``max_chars`` is cut apart.
    """
    if len(text) <= max_chars:
        return text
    end = max_chars
    while end > 0 and (_continues(text, end) or _inside_flag(text, end)):
        end -= 1
    return text[: end or max_chars].rstrip()


def resolve_columns(
    columns: list[str], named: Mapping[str, str | None], path: Path, unloaded: Collection[str] = ()
) -> dict[str, str | None]:
    """Decide which column has which role.

    Args:
        columns: names in the file's header.
        named: role (a key of :data:`COLUMN_GUESSES`) to the configured column, or None to guess.
        path: the file, for messages.
        unloaded: columns that may not be read.

    Returns:
        Role to column name; None where no column fits a guess.

    Raises:
        DataError: a configured column is absent, and the message lists those that exist; or it may not be read.
    """
    folded = {column.casefold(): column for column in reversed(columns) if column not in unloaded}
    resolved: dict[str, str | None] = {}
    for role, name in named.items():
        if name is not None and name not in columns:
            raise DataError(
                f"{role}_field is {name!r}, but {path} has no such column; its columns are {', '.join(columns)}"
                f"{did_you_mean(name, columns)}"
            )
        if name is not None and name in unloaded:
            raise DataError(f"{role}_field is {name!r}, which unload_col leaves out of {path}: take it out of one of them")
        guesses = (folded[guess] for guess in COLUMN_GUESSES[role] if guess in folded)
        resolved[role] = name if name is not None else next(guesses, None)
    return resolved


@dataclass(frozen=True)
class _AtomicFile:
    """Header and rows of one atomic file."""

    path: Path
    form: AtomicFormat

    @property
    def _encoding(self) -> str:
        given = codecs.lookup(self.form.encoding or "utf-8").name
        return "utf-8-sig" if given == "utf-8" else given

    def _lines(self) -> Iterator[str]:
        """Yield lines without their ends, bytes of another encoding as lone surrogates."""
        try:
            # Lines end at \n alone: \x85 and U+2028 stay inside their line.
            with self.path.open(encoding=self._encoding, errors="surrogateescape", newline="\n") as file:
                for line in file:
                    yield line.rstrip("\r\n")
        except UnicodeError as error:
            raise DataError(f"{self.path} is not encoded in {self._encoding} ({error}): name its encoding") from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error

    def types(self) -> dict[str, str]:
        """Read the header: column to type, in order."""
        cells = _ESCAPED_BYTE.sub("\ufffd", next(self._lines(), "")).split(self.form.field_separator)
        untyped = [cell for cell in cells if ":" not in cell]
        if untyped:
            raise DataError(
                f"the header of {self.path} has the field {untyped[0]!r}, expected name:type such as title:token_seq "
                f"between separators {self.form.field_separator!r}"
            )
        types = {name: kind for name, _, kind in (cell.rpartition(":") for cell in cells)}
        if len(types) < len(cells):
            raise DataError(
                f"the header of {self.path} names a column twice ({', '.join(cells)}): rename or remove one of them"
            )
        return types

    def unloaded(self) -> set[str]:
        """Columns that ``unload_col`` leaves out."""
        names = (self.form.unload_col or {}).get(self.path.suffix[1:], ())
        return set() if names == "*" else set(names)

    def rows(self, report: ReadReport) -> Iterator[list[str]]:
        """Yield each row's fields, as many as the header has."""
        width = len(self.types())
        for number, content in enumerate(self._lines()):
            if number == 0 or not content:
                continue
            report.rows += 1
            text = _ESCAPED_BYTE.sub("\ufffd", content)
            report.undecodable_rows += text != content
            cells = text.split(self.form.field_separator)
            report.short_rows += len(cells) < width
            report.long_rows += len(cells) > width
            yield [*cells[:width], *[""] * (width - len(cells))]

    def text_of(self, cell: str, kind: str) -> str:
        """Return the text of a cell of a column of a type."""
        separator = self.form.seq_separator
        if kind == "token_seq" and separator.strip():
            cell = ", ".join(filter(None, (token.strip() for token in cell.split(separator))))
        return clean_text(cell)

    def position_of(self, column: str, columns: list[str]) -> int:
        """Index of an id column that must be there."""
        if column not in columns:
            raise DataError(f"{self.path} has no column {column!r}; its columns are {', '.join(columns)}")
        return columns.index(column)

    def refuse_if_broken(self, report: ReadReport, max_broken_share: float) -> None:
        """Raise when too many rows cannot be trusted."""
        broken = report.long_rows + report.undecodable_rows
        if broken > max_broken_share * report.rows:
            raise DataError(
                f"{self.path}: {report.long_rows:,} of {report.rows:,} rows have more fields than the header and "
                f"{report.undecodable_rows:,} are not {self.form.encoding or 'utf-8'}, above the limit of "
                f"{max_broken_share:.1%}; check field_separator (now {self.form.field_separator!r}), name the file's encoding, "
                "such as --encoding=gbk or --encoding=latin-1, or raise max_missing_share"
            )


def read_item_texts(
    path: Path,
    *,
    item_id_field: str,
    named: Mapping[str, str | None],
    wanted: set[str],
    form: AtomicFormat = AtomicFormat(),
    max_broken_share: float = 0.05,
) -> tuple[dict[str, ItemText], ReadReport]:
    """Read the texts of the wanted items from a ``.item`` file.

    Args:
        path: the ``.item`` file.
        item_id_field: name of the id column.
        named: configured columns of the roles title, categories, city and description; None guesses.
        wanted: raw item tokens to keep; other rows are passed over.
        form: encoding, separators and columns left out.
        max_broken_share: share of rows with surplus fields or bad bytes above which the file is refused.

    Returns:
        Texts by raw token, for the wanted items that have a row, and the counts.

    Raises:
        DataError: the file is absent or unreadable, its header is malformed, a column is absent, no row belongs to a
            wanted item, or too many rows are broken.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist, and profiles, hard negatives and alignment are made of items' text. Add the file with a "
            "title column, or train without: --negative_route=none --alignment_weight=0"
        )
    file = _AtomicFile(path, form)
    types = file.types()
    columns = list(types)
    id_position = file.position_of(item_id_field, columns)
    report = ReadReport(columns=resolve_columns(columns, named, path, file.unloaded()))
    places = {role: (columns.index(name), types[name]) for role, name in report.columns.items() if name is not None}
    if not places.keys() & {"title", "categories", "description"}:
        raise DataError(
            f"{path} has no column that says what an item is (columns: {', '.join(columns)}); name one with "
            "--title_field=COLUMN, or train without texts: --negative_route=none --alignment_weight=0"
        )
    texts: dict[str, ItemText] = {}
    for cells in file.rows(report):
        token = cells[id_position]
        if token in texts:
            report.duplicate_rows += 1
        elif token in wanted:
            texts[token] = ItemText(**{role: file.text_of(cells[place], kind) for role, (place, kind) in places.items()})
    file.refuse_if_broken(report, max_broken_share)
    report.without_row = len(wanted) - len(texts)
    if wanted and not texts:
        raise DataError(
            f"{path}: none of its {report.rows:,} rows has an item of the interactions, whose ids look like "
            f"{min(wanted)!r}; check that both files use the same ids and that {item_id_field} is the right column"
        )
    return texts, report


def read_reviews(
    path: Path,
    *,
    user_id_field: str,
    item_id_field: str,
    named: str | None,
    wanted: Mapping[tuple[str, str], int],
    form: AtomicFormat = AtomicFormat(),
    max_broken_share: float = 0.05,
) -> tuple[dict[tuple[str, str], str], ReadReport]:
    """Read the reviews of training pairs from a ``.inter`` file.

    A pair that the file holds more often than the training split does has rows in another split; tokens do not
    show which review is whose, so none of them is used. That keeps held-out reviews out of every prompt.

    Args:
        path: the ``.inter`` file.
        user_id_field: name of the user id column.
        item_id_field: name of the item id column.
        named: configured review column; None guesses.
        wanted: (user token, item token) of the pairs whose review is needed, to their number of training rows.
        form: encoding, separators and columns left out.
        max_broken_share: as in :func:`read_item_texts`.

    Returns:
        Reviews by pair (empty ones left out), and the counts; no review at all when the file has no such column.

    Raises:
        DataError: the file is unreadable, its header is malformed, a column is absent, or too many rows are broken.
    """
    file = _AtomicFile(path, form)
    types = file.types()
    columns = list(types)
    report = ReadReport(columns=resolve_columns(columns, {"review": named}, path, file.unloaded()))
    column = report.columns["review"]
    if column is None:
        return {}, report
    user_position, item_position = (file.position_of(name, columns) for name in (user_id_field, item_id_field))
    review_position = columns.index(column)
    reviews: dict[tuple[str, str], str] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for cells in file.rows(report):
        pair = (cells[user_position], cells[item_position])
        if pair not in wanted:
            continue
        seen[pair] += 1
        report.duplicate_rows += seen[pair] > 1
        review = file.text_of(cells[review_position], types[column])
        if review:
            reviews.setdefault(pair, review)
    file.refuse_if_broken(report, max_broken_share)
    for pair, count in seen.items():
        if count > wanted[pair] and reviews.pop(pair, None) is not None:
            report.ambiguous += 1
    return reviews, report
