"""Turn the typed settings into a Markdown table, so that the reference cannot differ from the code."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any, get_args, get_origin

from recbole_hnlm.config.settings import HNLMSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

__all__ = ["write_reference"]


def type_text(annotation: Any) -> str:
    """Write a type as RecBole users read it in YAML comments: str, int, float, bool, or the values to choose from."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return type_text(get_args(annotation)[0])
    if origin is typing.Literal:
        return " / ".join(f"`{value}`" for value in get_args(annotation))
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(type_text(part) for part in get_args(annotation))
    if annotation is type(None):
        return "null"
    return getattr(annotation, "__name__", str(annotation))


def bounds_text(field: FieldInfo) -> str:
    """Write the numeric bounds of a field, such as ``>= 0, <= 1``; empty where there are none."""
    found = list(field.metadata)
    for part in get_args(field.annotation):
        found += getattr(part, "__metadata__", ())
    for constraint in tuple(found):
        found += getattr(constraint, "metadata", ())
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [(sign, getattr(constraint, name, None)) for constraint in found for name, sign in signs.items()]
    return ", ".join(f"{sign} {value}" for sign, value in bounds if value is not None)


def write_reference(path: Path) -> None:
    """Write the table of all keys to ``path``."""
    rows = ["| key | type | range | default | meaning |", "|---|---|---|---|---|"]
    for name, field in HNLMSettings.model_fields.items():
        default = "null" if field.default is None else field.default
        cells = [f"`{name}`", type_text(field.annotation), bounds_text(field), f"`{default}`", field.description or ""]
        rows.append("| " + " | ".join(cells) + " |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
