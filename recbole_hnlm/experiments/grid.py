"""A small grid of settings that every row is tuned over: the best on validation with the first seed serves all seeds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.experiments.cells import Cell
    from recbole_hnlm.experiments.methods import Method

__all__ = ["Choice", "GridKey", "choose", "edge_note", "grid_note", "parse_grid", "point_text", "points_of"]


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
    """What the grid found for a row.

    Attributes:
        point: key to the chosen value.
        scores: each point's key and values as text, to its validation score; None where its cell failed.
    """

    point: dict[str, str]
    scores: dict[str, float | None]

    @property
    def failed(self) -> list[str]:
        """Points whose cell failed, as text."""
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


def point_text(point: Mapping[str, str]) -> str:
    """Write a point as a user would: ``learning_rate=0.002, n_layers=3``."""
    return ", ".join(f"{key}={value}" for key, value in point.items())


def choose(trials: Sequence[tuple[dict[str, str], Cell]], scores: Mapping[str, float], failed: Sequence[str]) -> Choice | None:
    """Choose a row's point: the highest validation score, the first of equals.

    Args:
        trials: point and cell, in the order of the grid.
        scores: cell id to its best validation score, for finished cells.
        failed: ids of cells that were run and failed.

    Returns:
        The choice; a single point is one at once, without a score; None while a point is neither finished nor failed, or where
        all failed.
    """
    if len(trials) == 1:
        return Choice(trials[0][0], {})
    if any(cell.id not in scores and cell.id not in failed for _, cell in trials):
        return None
    finished = [(scores[cell.id], point) for point, cell in trials if cell.id in scores]
    if not finished:
        return None
    best = max(score for score, _ in finished)
    point = next(point for score, point in finished if score == best)
    return Choice(point, {point_text(point): scores.get(cell.id) for point, cell in trials})


def grid_note(grid: Sequence[GridKey], valid_metric: str) -> str:
    """Say in one sentence how rows were tuned."""
    keys = "; ".join(f"{f'{entry.scope}.' if entry.scope else ''}{entry.key} in {', '.join(entry.values)}" for entry in grid)
    return (
        f"Every row was tuned over the grid {keys}: the point with the best {valid_metric} on validation, with the first seed, "
        "holds for all seeds."
    )


def edge_note(grid: Sequence[GridKey], points: Mapping[str, Mapping[str, str]]) -> list[str]:
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
