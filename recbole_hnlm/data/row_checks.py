"""Rows of atomic files, looked at before RecBole parses them.

RecBole 1.2.1 reads with pandas' Python parser and ``usecols``. A surplus field in the first row then shifts every column by
one, surplus fields of later rows are dropped, absent ones are made up, and a quotation mark that begins a cell swallows all
lines up to the next one: all without a word.
"""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from recbole_hnlm.config.atomic_headers import read_header
from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["bad_cells", "check_rows"]


def check_rows(file: Path, encoding: str | None, separator: str) -> None:
    """Check that every row has as many fields as the header, and no cell that RecBole's parser takes for several lines.

    Args:
        file: an atomic file.
        encoding: RecBole's key; None is UTF-8.
        separator: RecBole's ``field_separator``.

    Raises:
        DataError: a ragged row, a quotation mark without its partner, a cell beyond the parser's limit, bytes of another
            encoding, or no row at all; with the line.
    """
    width = len(read_header(file, encoding, separator))
    rows = 0
    try:
        for number, line in _rows(file, encoding):
            found = line.count(separator) + 1
            if found != width or '"' in line or len(line) > csv.field_size_limit():
                if not line.strip() and found == 1:
                    continue
                found = _fields(line, separator, f"{file}, line {number}")
            if found != width:
                raise DataError(
                    f"{file}, line {number}: expected {width} fields as in the header, found {found}: {shown(line)}; correct "
                    "the row or remove it"
                )
            rows += 1
    except UnicodeError as error:
        raise DataError(_not_encoded(file, encoding)) from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if rows == 0:
        raise DataError(f"{file} has a header and no rows")


def _rows(file: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Yield (line number, line without its end), the header left out; lines end as RecBole's reader ends them."""
    with file.open(encoding=encoding or "utf-8") as lines:
        next(lines, None)
        for number, line in enumerate(lines, start=2):
            yield number, line.rstrip("\n")


def _not_encoded(file: Path, encoding: str | None) -> str:
    return f"{file} is not encoded in {encoding or 'utf-8'}: name its encoding, such as --encoding=gbk or --encoding=latin-1"


def _fields(line: str, separator: str, where: str) -> int:
    """Count the fields as pandas does: with a separator of one character, quotation marks hold a cell together."""
    if len(separator) > 1:
        return line.count(separator) + 1
    try:
        return len(next(csv.reader([line], delimiter=separator, strict=True)))
    except csv.Error as error:
        if "limit" in str(error):
            raise DataError(
                f"{where}: a cell has more than {csv.field_size_limit():,} characters, the most that RecBole's reader takes"
            ) from error
        raise DataError(
            f"{where}: a quotation mark begins a cell and does not end it ({shown(line)}), so RecBole's reader would take the "
            'following lines for the same cell: remove it, or write the cell as "..." with each mark inside doubled'
        ) from error


def bad_cells(file: Path, encoding: str | None, separator: str, seq_separator: str) -> Iterator[str]:
    """Yield what is wrong in the number columns of an atomic file, with line and column."""
    types = read_header(file, encoding, separator)
    try:
        for number, line in _rows(file, encoding):
            for (column, kind), cell in zip(types.items(), line.split(separator), strict=False):
                parts = {"float": [cell.strip()], "float_seq": cell.split(seq_separator)}.get(kind, [])
                wrong = next((part for part in parts if part and not _is_number(part)), None)
                if wrong is not None:
                    yield (
                        f"{file}, line {number}, column {column}: {shown(wrong)} is not a finite number; write a number (times "
                        "as seconds), leave the cell empty, or leave the column out with load_col"
                    )
    except UnicodeDecodeError:
        yield _not_encoded(file, encoding)


def _is_number(text: str) -> bool:
    """Whether a text is a finite number, or "nan", which pandas reads as an empty cell."""
    try:
        return not math.isinf(float(text))
    except ValueError:
        return False
