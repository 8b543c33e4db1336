"""Lines that are not strict JSON, read without evaluating code."""

from __future__ import annotations

import ast
import json

__all__ = ["python_literal", "relaxed_json"]


def _mended(value: object) -> object:
    """Join surrogate pairs and replace lone surrogates, which no UTF-8 file can hold, by U+FFFD, at any depth."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_mended(part) for part in value]
    if isinstance(value, dict):
        return {key: _mended(part) for key, part in value.items()}
    return value


def relaxed_json(line: bytes) -> object:
    """Read JSON with lone surrogates, bytes that are not UTF-8, raw control characters or NaN.

    Raises:
        ValueError: no JSON in that sense either.
    """
    try:
        return _mended(json.loads(line.decode("utf-8-sig", "replace"), strict=False))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def python_literal(line: bytes) -> object:
    """Read a Python literal (the lines of Amazon's 2014 metadata); nothing is executed.

    Raises:
        ValueError: neither a literal nor JSON in the sense of :func:`relaxed_json`.
    """
    try:
        return _mended(ast.literal_eval(line.decode("utf-8-sig", "replace").strip()))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return relaxed_json(line)
