"""Tables written row by row as CSV, JSON lines or Parquet: any number of rows in the memory of a few."""

from __future__ import annotations

import csv
import importlib
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.errors import ArtifactError, ConfigError, MissingDependencyError
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.given_paths import output_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["ROW_FORMATS", "check_row_file", "inert_cell", "row_writer"]

ROW_FORMATS = ("csv", "jsonl", "parquet")
_GROUP_ROWS = 65_536  # of a Parquet row group, whose columns are held until it is full
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def check_row_file(path: str | Path) -> Path:
    """Check, before any work, that a table can be written under a name; returns it, with ``~`` read as the home folder.

    Raises:
        ConfigError: the suffix names none of the formats, or the path is a folder.
        ArtifactError: its folder cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    file = output_file(path, "the table", ArtifactError)
    if file.suffix.removeprefix(".") not in ROW_FORMATS:
        expected = ", ".join(f".{name}" for name in ROW_FORMATS)
        raise ConfigError(f"{file} ends in {file.suffix or 'no suffix'}: expected one of {expected}")
    if file.suffix == ".parquet":
        _pyarrow("pyarrow")
    return file


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'Parquet needs the package pyarrow ({error}): pip install "recbole-hnlm[parquet]", or write .csv or .jsonl'
        ) from error


def inert_cell(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula; numbers stay as they are.

    Source: OWASP, "CSV Injection": cells that begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return.
    """
    return f"'{text}" if text[:1] in set("=+-@\t\r") and not _NUMBER.fullmatch(text) else text


@contextmanager
def row_writer(path: str | Path, columns: Mapping[str, type]) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    """Yield a function that appends rows to a table; the file appears whole at the end, and not at all after an error.

    In CSV, texts that a spreadsheet would run as formulas get an apostrophe (:func:`inert_cell`); the other formats keep every
    text as it is.

    Args:
        path: the file; its suffix chooses the format.
        columns: names to types: str, int (64 bits) or float (in Parquet 32 bits).

    Yields:
        A function that takes rows as columns of equal lengths by name.

    Raises:
        ConfigError, MissingDependencyError: as :func:`check_row_file`.
        ArtifactError: the file cannot be written; an earlier file of that name is left as it was.
    """
    file = check_row_file(path)
    writer = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[file.suffix]
    with replacing(file) as partial, writer(partial, columns) as append:
        yield append


@contextmanager
def _csv_rows(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)

        def append(rows: Mapping[str, Sequence[Any]]) -> None:
            cells = (map(inert_cell, rows[name]) if kind is str else rows[name] for name, kind in columns.items())
            writer.writerows(zip(*cells, strict=True))

        yield append


@contextmanager
def _json_rows(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    with path.open("w", encoding="utf-8") as file:

        def append(rows: Mapping[str, Sequence[Any]]) -> None:
            for row in zip(*(rows[name] for name in columns), strict=True):
                file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")

        yield append


@contextmanager
def _parquet_rows(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float32()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    waiting: dict[str, list[Any]] = {name: [] for name in columns}
    first = next(iter(columns))

    def flush() -> None:
        writer.write_table(arrow.table(waiting, schema=schema))
        for values in waiting.values():
            values.clear()

    def append(rows: Mapping[str, Sequence[Any]]) -> None:
        for name, values in waiting.items():
            values.extend(rows[name])
        if len(waiting[first]) >= _GROUP_ROWS:
            flush()

    with parquet.ParquetWriter(path, schema) as writer:
        yield append
        if waiting[first]:
            flush()
