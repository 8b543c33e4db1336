"""Turn the typed settings into a Markdown table, so that the reference cannot differ from the code."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any, get_args, get_origin

from recbole_hnlm.config.facts import facts_of
from recbole_hnlm.config.settings import HNLMSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

    from recbole_hnlm.config.facts import Affects, Facts

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


def changes_text(affects: Affects) -> str:
    """Write what another value of a key changes; a dash where that is no number."""
    return ", ".join(part.name.lower().replace("llm", "LLM") for part in affects if part.name) or "-"


def read_by_text(facts: Facts) -> str:
    """Write which runs read a key."""
    parts = [facts.read_by.value]
    parts += [f"with `{key}` {' or '.join(map(str, values))}" for key, values in facts.when.items()]
    parts += [f"unless `{key}` is {' or '.join(map(str, values))}" for key, values in facts.unless.items()]
    return ", ".join(parts)


def write_reference(path: Path) -> None:
    """Write the table of all keys to ``path``."""
    rows = ["| key | type | range | default | meaning | changes | read by |", "|---|---|---|---|---|---|---|"]
    for name, field in HNLMSettings.model_fields.items():
        default = "null" if field.default is None else field.default
        cells = [f"`{name}`", type_text(field.annotation), bounds_text(field), f"`{default}`", field.description or ""]
        facts = facts_of(field)
        cells += [changes_text(facts.affects), read_by_text(facts)]
        rows.append("| " + " | ".join(cells) + " |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
