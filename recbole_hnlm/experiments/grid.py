"""A small grid of settings that every row is tuned over: the best on validation with the first seed serves all seeds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_hnlm.experiments.space import Space
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.experiments.methods import Method
    from recbole_hnlm.experiments.space import Dimension

__all__ = ["Choice", "GridKey", "edge_note", "grid_note", "parse_grid", "parse_scoped", "point_text", "points_of"]


class GridKey(NamedTuple):
    """One key of the grid.

    Attributes:
        scope: the model or the negative sampler whose rows it is for; None for all rows.
        key: its name.
        values: as given, in order.
    """

    scope: str | None
    key: str
    values: tuple[str, ...]


class Choice(NamedTuple):
    """What a search found for a row.

    Attributes:
        point: key to the chosen value.
        scores: each point's key and values as text, to its validation score; None where its trial failed.
    """

    point: dict[str, Any]
    scores: dict[str, float | None]

    @property
    def failed(self) -> list[str]:
        """Points whose trial failed, as text."""
        return [point for point, score in self.scores.items() if score is None]


def parse_grid(texts: Sequence[str], models: Sequence[str], samplers: Sequence[str]) -> list[GridKey]:
    """Read ``KEY=V1,V2``, ``MODEL.KEY=V1,V2`` and ``SAMPLER.KEY=V1,V2``.

    Args:
        texts: one a key.
        models: names that may scope a key.
        samplers: names that may scope a key.

    Raises:
        ConfigError: another form, an unknown scope, no value, one that is given twice, or a key that is given twice.
    """
    keys: list[GridKey] = []
    for text in texts:
        name, equals, listed = text.partition("=")
        values = tuple(part.strip() for part in listed.split(",") if part.strip())
        scope, dot, key = name.strip().rpartition(".")
        if not (equals and key and values) or any(character in listed for character in "[]{}"):
            raise ConfigError(f"grid: expected KEY=V1,V2 such as learning_rate=0.001,0.002, got {text!r}")
        if dot and scope not in {*models, *samplers}:
            raise ConfigError(f"grid: {scope} in {text!r} is not one of {', '.join((*models, *samplers))}")
        if len(set(values)) < len(values):
            raise ConfigError(f"grid: {text!r} names a value twice")
        if any((other.scope, other.key) == (scope or None, key) for other in keys):
            raise ConfigError(f"grid: {name} is given twice")
        keys.append(GridKey(scope or None, key, values))
    return keys


def points_of(grid: Sequence[GridKey], method: Method) -> list[dict[str, str]]:
    """Return every combination of the values that concern a row; a key scoped by model or sampler beats the same one without.

    Returns:
        At least one point, the empty one where the grid does not concern the row; the last key varies fastest.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for scoped in (False, True):
        for entry in grid:
            if (entry.scope is not None) == scoped and entry.scope in {None, method.model, method.sampler}:
                chosen[entry.key] = entry.values
    return [dict(zip(chosen, values, strict=True)) for values in product(*chosen.values())]


def point_text(point: Mapping[str, Any]) -> str:
    """Write a point as a user would: ``learning_rate=0.002, n_layers=3``; drawn numbers with four digits."""
    return ", ".join(f"{key}={f'{value:.4g}' if isinstance(value, float) else value}" for key, value in point.items())


def parse_scoped(space: Space, method: Method) -> Space:
    """Return a space's keys that concern a row; ``MODEL.KEY`` and ``SAMPLER.KEY`` are for rows of these, before ``KEY``."""
    own: dict[str, Dimension] = {}
    for scoped in (False, True):
        for dimension in space.dimensions:
            scope, dot, key = dimension.key.rpartition(".")
            if bool(dot) == scoped and scope in {"", method.model, method.sampler}:
                own[key] = replace(dimension, key=key)
    return Space(tuple(own.values()), space.source)


def grid_note(grid: Sequence[GridKey], valid_metric: str) -> str:
    """Say in one sentence how rows were tuned."""
    keys = "; ".join(f"{f'{entry.scope}.' if entry.scope else ''}{entry.key} in {', '.join(entry.values)}" for entry in grid)
    return (
        f"Every row was tuned over the grid {keys}: the point with the best {valid_metric} on validation, with the first seed, "
        "holds for all seeds."
    )


def edge_note(grid: Sequence[GridKey], points: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which rows chose the lowest or highest of a key's numbers, so that a wider grid may suit them better.

    Args:
        grid: the keys that were tuned over.
        points: by label, the chosen points.

    Returns:
        One line, or none.
    """
    found: dict[str, list[str]] = {}
    for label, point in points.items():
        for key, value in point.items():
            numbers = sorted({float(each) for entry in grid if entry.key == key for each in entry.values if _is_number(each)})
            if len(numbers) > 1 and _is_number(value) and float(value) in {numbers[0], numbers[-1]}:
                found.setdefault(key, []).append(label)
    if not found:
        return []
    listed = "; ".join(f"{key}: {len(labels)} of {len(points)} rows" for key, labels in found.items())
    return [f"Chosen at the edge of the grid, so that a wider one may give more: {listed}."]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
