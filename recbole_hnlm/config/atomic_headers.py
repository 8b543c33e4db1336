"""Headers of RecBole's atomic files: which columns of which type a configuration loads, checked before RecBole reads."""

from __future__ import annotations

import codecs
import re
import shlex
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "FLOAT_TYPES",
    "SOURCES",
    "TOKEN_TYPES",
    "check_separators",
    "guess_separator",
    "loaded_columns",
    "read_header",
    "shown_names",
]

FLOAT_TYPES = frozenset({"float", "float_seq"})
TOKEN_TYPES = frozenset({"token", "token_seq"})
SOURCES = ("inter", "user", "item")
_TYPES = ("token", "token_seq", "float", "float_seq")
_LIKELY_TYPE = {"int": "float", "integer": "float", "double": "float", "number": "float", "str": "token", "string": "token"}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = ("\t", ",", ";", "|", "::", " ")
_TAB = r"--field_separator=\t"
_HEADER_BYTES = 1 << 20
_SHOWN_NAMES = 300


def check_separators(config: Mapping[str, Any]) -> list[str]:
    """Check ``encoding``, ``field_separator`` and ``seq_separator``, which both readers of atomic files obey."""
    problems = []
    encoding = config.get("encoding")
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, TypeError, ValueError):
            problems.append(
                f"encoding: expected an encoding of texts, such as utf-8, utf-8-sig, gbk or latin-1, got {shown(encoding)}"
            )
    for key in ("field_separator", "seq_separator"):
        value = config.get(key)
        if not isinstance(value, str) or not value or set(value) & set('\r\n"'):
            problems.append(
                rf"{key}: expected one or more characters, such as , or \t, without quotation marks or line ends, "
                f"got {shown(value)}"
            )
    separator = config.get("field_separator")
    # The parser of pandas takes more than one character for a regular expression, RecBole's reader of headers does not.
    if isinstance(separator, str) and len(separator) > 1 and re.escape(separator) != separator:
        problems.append(
            f"field_separator: RecBole takes several characters for a regular expression, got {shown(separator)}; use one "
            "character, or several without special meaning such as ::"
        )
    return problems


# The first bytes of archives, which no text begins with.
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\xfd7zX": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def guess_separator(header: str, given: str) -> str | None:
    """Return the separator that makes every cell of a header ``name:type``, where the given one does not; else None."""
    for separator in _SEPARATORS:
        cells = header.split(separator)
        if separator != given and len(cells) > 1 and all(re.fullmatch(r"[^:]+:\w+", cell.strip()) for cell in cells):
            return separator
    return None


def _first_line(file: Path, encoding: str | None) -> str:
    """Read a file's first line; universal newlines, as RecBole reads it."""
    with file.open("rb") as stream:
        start = stream.read(4)
    packed = next((name for signature, name in _PACKED.items() if start.startswith(signature)), None)
    if packed is not None:
        raise DataError(f"{file} is a {packed} archive, expected text: unpack it, and give what is inside this name")
    mark = next((name for signature, name in _MARKS.items() if start.startswith(signature)), None)
    marked_by = codecs.lookup(encoding).name if encoding else None
    if mark is not None and mark != marked_by:
        raise DataError(
            f"{file} begins with a byte order mark, which encoding {encoding or 'utf-8'} takes for text: use --encoding={mark}"
        )
    try:
        with file.open(encoding=encoding or "utf-8") as lines:
            header = lines.readline(_HEADER_BYTES).rstrip("\r\n")
    except (UnicodeError, LookupError) as error:
        raise DataError(
            f"{file} is not encoded in {encoding or 'utf-8'} ({shown(str(error))[1:-1]}): name its encoding, such as "
            "--encoding=gbk or --encoding=latin-1"
        ) from error
    if "\0" in header:
        raise DataError(
            f"{file} has zero bytes in its first line, so it is no text in {encoding or 'utf-8'}: name its encoding, such as "
            "--encoding=utf-16-le, or get the file again"
        )
    return header


def read_header(file: Path, encoding: str | None, separator: str) -> dict[str, str]:
    """Read the columns of an atomic file: name to type, in order.

    Args:
        file: an existing atomic file.
        encoding: RecBole's key; None is UTF-8.
        separator: RecBole's ``field_separator``.

    Raises:
        DataError: the file cannot be read, is empty or packed, begins with a byte order mark, is of another encoding or has a
            header that is not made of different ``name:type`` cells; the message says what it seems to be instead.
    """
    try:
        header = _first_line(file, encoding)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if not header:
        raise DataError(f"{file} is empty or begins with an empty line, expected a first line of name:type columns")
    columns: dict[str, str] = {}
    for cell in header.split(separator):
        name, colon, kind = cell.partition(":")
        if not colon or not name or ":" in kind:
            raise DataError(_untyped(file, header, cell, separator))
        if cell != cell.strip():
            raise DataError(f"{file}: column {shown(cell)} has white space around its name: remove it from the first line")
        if kind not in _TYPES:
            likely = next((known for known in _TYPES if known == kind.strip().lower()), _LIKELY_TYPE.get(kind.strip().lower()))
            hint = f": write {name}:{likely}" if likely else ""
            raise DataError(f"{file}: column {shown(cell)} has an unknown type, expected one of {', '.join(_TYPES)}{hint}")
        if name in columns:
            raise DataError(f"{file} has two columns named {shown(name)}: rename or remove one of them")
        columns[name] = kind
    return columns


def _untyped(file: Path, header: str, cell: str, separator: str) -> str:
    guess = guess_separator(header, separator)
    if guess is not None:
        return (
            f"{file}: the columns seem to be separated by {guess!r}, not by {separator!r}: "
            f"use {shlex.quote(f'--field_separator={guess}') if guess != chr(9) else _TAB}"
        )
    return (
        f"{file} is not a RecBole atomic file: its first line has the cell {shown(cell)}, expected name:type cells such as "
        f"item_id:token, title:token_seq or price:float, separated by {separator!r}"
    )


def shown_names(names: Iterable[str]) -> str:
    """Write column names for a message, cut to what fits into one."""
    text = ", ".join(names)
    return text if len(text) <= _SHOWN_NAMES else f"{text[: _SHOWN_NAMES - 3]}..."


def _names(value: Any) -> list[str] | None:
    """Return the column names of one entry of ``load_col`` or ``unload_col``; None means all."""
    return None if value is None or value == "*" else [str(name) for name in value]


def loaded_columns(files: Mapping[str, list[Path]], config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Work out which columns RecBole would load.

    Args:
        files: existing atomic files by source (``inter``, ``user``, ``item`` or an additional suffix).
        config: with ``load_col``, ``unload_col``, ``encoding`` and ``field_separator``, of checked form.

    Returns:
        Source to name to type of the loaded columns.

    Raises:
        DataError: as :func:`read_header`; or a column that ``load_col`` names is absent, with those there are.
    """
    load, unload = config.get("load_col"), config.get("unload_col") or {}
    loaded: dict[str, dict[str, str]] = {}
    for source, paths in files.items():
        wanted = None if load is None else _names(load.get(source, []))
        if wanted == []:
            continue
        for path in paths:
            columns = read_header(path, config.get("encoding"), str(config["field_separator"]))
            absent = [name for name in wanted or () if name not in columns]
            if absent:
                raise DataError(
                    f"load_col names column {shown_names(absent)}, which {path} does not have (found {shown_names(columns)}): "
                    "correct load_col, or USER_ID_FIELD and ITEM_ID_FIELD if they have other names"
                )
            left_out = set(_names(unload.get(source)) or ())
            kept = {name: kind for name, kind in columns.items() if name not in left_out and (wanted is None or name in wanted)}
            loaded[source] = {**loaded.get(source, {}), **kept}
    return loaded
