"""The keys that a search tunes, in the format of RecBole's ``hyper.test``: one ``NAME TYPE RANGE`` a line.

========================== ====================================================================================
``choice [a, b, ...]``      one of the values; a list inside the list, such as ``[64, 64]``, is one value
``uniform low, high``       any number between them
``quniform low, high, q``   a multiple of q; as in hyperopt, bounds are rounded to multiples too
``loguniform low, high``    e to the power of a number between them: **the bounds are natural logarithms**
========================== ====================================================================================

RecBole evaluates choices with ``eval`` and skips lines of fewer parts; here values are literals, and such a line is an error.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, get_args

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.given_paths import input_file
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.values import parse_value, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from optuna.distributions import BaseDistribution

__all__ = ["Dimension", "Kind", "Space", "point_key", "read_space", "read_space_file", "shipped_space"]

Kind = Literal["choice", "uniform", "quniform", "loguniform"]
_SCALARS = (bool, int, float, str, type(None))
_MOST_POINTS = 100_000
_GOLDEN = 0.381966
_MOST_EXPONENT = 700.0  # e to its power is a float
_FORMS = {
    "choice": "a list such as [0.001, 0.002]",
    "uniform": "two numbers low,high with low <= high",
    "quniform": "three numbers low,high,step with low <= high and step > 0",
    "loguniform": "two natural logarithms low,high with low <= high, such as -8,-3 for e^-8 to e^-3",
}


@dataclass(frozen=True)
class Dimension:
    """One key and its range.

    Attributes:
        key: name of the key.
        kind: the type of its range.
        values: the values of a ``choice`` in their order: None, bool, int, float or text (as Optuna stores them).
        numbers: the numbers of the other types as they were written.
    """

    key: str
    kind: Kind
    values: tuple[Any, ...] = ()
    numbers: tuple[str, ...] = ()

    def distribution(self) -> BaseDistribution:
        """Return what Optuna samples from."""
        if self.kind == "choice":
            return CategoricalDistribution(self.values)
        if self.kind == "quniform":
            steps = self._multiples()
            step = Fraction(self.numbers[2])
            if step.denominator == 1:
                return IntDistribution(int(steps[0] * step), int(steps[-1] * step), step=int(step))
            return FloatDistribution(float(steps[0] * step), float(steps[-1] * step), step=float(step))
        low, high = (float(number) for number in self.numbers)
        if self.kind == "loguniform":
            return FloatDistribution(math.exp(low), math.exp(high), log=True)
        return FloatDistribution(low, high)

    def _multiples(self) -> range:
        """Factors k of q that hyperopt's ``round(uniform(low, high) / q) * q`` reaches with a probability above 0."""
        low, high, step = (Fraction(number) for number in self.numbers)
        first = math.floor(low / step + Fraction(1, 2))
        return range(first, max(first, math.ceil(high / step - Fraction(1, 2))) + 1)

    def all_values(self) -> list[Any] | None:
        """Return every value of a ``choice`` or ``quniform``; None for a continuous range."""
        if self.kind == "choice":
            return list(self.values)
        if self.kind == "quniform":
            return [self.exact(float(factor * Fraction(self.numbers[2]))) for factor in self._multiples()]
        return None

    def probes(self) -> list[Any]:
        """Return the values by which the key is checked before any trial: all choices, or both bounds and a number between."""
        if self.kind == "choice":
            return list(self.values)
        distribution = self.distribution()
        assert isinstance(distribution, (IntDistribution, FloatDistribution))  # noqa: S101 - for the type checker
        low, high = self.exact(distribution.low), self.exact(distribution.high)
        # Not a round number, so that a key of whole ones shows.
        between = [low + _GOLDEN * (high - low)] if self.kind in {"uniform", "loguniform"} and low < high else []
        return [low, *between, high]

    def exact(self, value: Any) -> Any:
        """Return a sampled value without the rounding error of a sum of steps: 0.3 for 0.30000000000000004."""
        if self.kind != "quniform":
            return value
        step = Fraction(self.numbers[2])
        multiple = round(Fraction(value) / step) * step
        return int(multiple) if step.denominator == 1 else float(multiple)

    def held(self, value: Any) -> list[Any]:
        """Return the value of this range that equals a configured one, in a list, or an empty list where none does."""
        every = self.all_values()
        if every is not None:
            plain = [parse_value(each) if isinstance(each, str) else each for each in every]
            alike = [isinstance(each, bool) == isinstance(value, bool) and each in (value, str(value)) for each in plain]
            return [each for each, is_alike in zip(every, alike, strict=True) if is_alike][:1]
        low, *_, high = self.probes()
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return [float(value)] if is_number and low <= value <= high else []

    def to_line(self) -> str:
        """Write the line of a ``hyper.test`` file."""
        return f"{self.key} {self.kind} {list(self.values) if self.kind == 'choice' else ','.join(self.numbers)}"


@dataclass(frozen=True)
class Space:
    """What a search tunes.

    Attributes:
        dimensions: one a key, in the order of the file.
        source: what the keys come from, for messages.
    """

    dimensions: tuple[Dimension, ...]
    source: str

    @classmethod
    def of_choices(cls, choices: Mapping[str, Sequence[Any]], source: str) -> Space:
        """Return the space of some values for each key."""
        return cls(tuple(Dimension(key, "choice", tuple(values)) for key, values in choices.items()), source)

    @property
    def keys(self) -> list[str]:
        """The tuned keys, in order."""
        return [dimension.key for dimension in self.dimensions]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what Optuna samples each key from."""
        return {dimension.key: dimension.distribution() for dimension in self.dimensions}

    def without(self, keys: Sequence[str]) -> Space:
        """Return the space of the other keys."""
        return Space(tuple(each for each in self.dimensions if each.key not in keys), self.source)

    def exact(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return sampled values in the order of the space, each as :meth:`Dimension.exact`."""
        return {each.key: each.exact(params[each.key]) for each in self.dimensions if each.key in params}

    def held(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the point that equals configured values; None where one of them lies outside of its range, or is not there."""
        found = {each.key: each.held(values[each.key]) if each.key in values else [] for each in self.dimensions}
        return {key: held[0] for key, held in found.items()} if all(found.values()) else None

    def size(self) -> int | None:
        """Number of points; None where a range is continuous."""
        sizes = [dimension.all_values() for dimension in self.dimensions]
        if any(values is None for values in sizes):
            return None
        return reduce(lambda product_so_far, values: product_so_far * len(values or ()), sizes, 1)

    def points(self) -> list[dict[str, Any]]:
        """Return every point, the last key varying fastest.

        Raises:
            ConfigError: a continuous range, or too many points to try.
        """
        endless = [each for each in self.dimensions if each.all_values() is None]
        if endless:
            raise ConfigError(
                f"{self.source}: {endless[0].key} {endless[0].kind} has no end of values, and an exhaustive search needs one: "
                "write it as choice or quniform, or search with --algo=tpe"
            )
        if (self.size() or 0) > _MOST_POINTS:
            raise ConfigError(
                f"{self.source}: {self.size():,} points, an exhaustive search takes {_MOST_POINTS:,} at most: use --algo=tpe"
            )
        values = [dimension.all_values() or [] for dimension in self.dimensions]
        return [dict(zip(self.keys, point, strict=True)) for point in product(*values)]

    def probes(self) -> list[dict[str, Any]]:
        """Return points that together hold every probe of every key: one key moves, the others stay at their first value."""
        first = {dimension.key: dimension.probes()[0] for dimension in self.dimensions}
        moved = [{**first, each.key: value} for each in self.dimensions for value in each.probes()[1:]]
        return [first, *moved]

    def to_lines(self) -> list[str]:
        """Write the space as lines of a ``hyper.test`` file."""
        return [dimension.to_line() for dimension in self.dimensions]


def point_key(params: Mapping[str, Any]) -> str:
    """Return a text that two points share exactly where all their values are equal."""
    return json.dumps(dict(params), sort_keys=True)


def read_space(lines: Sequence[str], source: str) -> Space:
    """Read the lines of a ``hyper.test`` file; blank ones and those that begin with ``#`` are left out.

    Args:
        lines: the lines.
        source: name of the file, for messages.

    Raises:
        ConfigError: a line that cannot be read, with its number; a key that is given twice; no line at all.
    """
    dimensions: dict[str, Dimension] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        dimension = _read_line(text, f"{source}, line {number}")
        if dimension.key in dimensions:
            raise ConfigError(f"{source}, line {number}: {dimension.key} is given twice; keep one line")
        dimensions[dimension.key] = dimension
    if not dimensions:
        raise ConfigError(f"{source}: no key to tune; expected lines such as `learning_rate loguniform -8,-3`")
    return Space(tuple(dimensions.values()), source)


def read_space_file(path: str | Path) -> Space:
    """Read a ``hyper.test`` file.

    Raises:
        ConfigError: it cannot be read, or as :func:`read_space`.
    """
    file = input_file(path, "params_file", "a file of lines such as `learning_rate loguniform -8,-3`")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"params_file {path} cannot be read as UTF-8 text: {error}") from error
    return read_space(text.splitlines(), str(path))


def shipped_space(*models: str) -> Space:
    """Return the space that is shipped for the first of these models that has one, ``properties/hyper/<Model>.test``.

    Raises:
        ConfigError: none of them has one.
    """
    folder = properties_dir() / "hyper"
    file = next((folder / f"{model}.test" for model in models if (folder / f"{model}.test").is_file()), None)
    if file is None:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.test")))
        raise ConfigError(
            f"no search space is shipped for {models[0]} (there are {known}): write one and give --params_file=FILE"
        )
    return read_space_file(file)


def _read_line(text: str, where: str) -> Dimension:
    parts = text.split(maxsplit=2)
    if len(parts) < 3:
        raise ConfigError(f"{where}: expected NAME TYPE RANGE, such as `learning_rate choice [0.001,0.002]`, got {shown(text)}")
    key, kind, written = parts
    if kind not in get_args(Kind):
        raise ConfigError(f"{where}: {key} has the unknown type {shown(kind)}; expected {', '.join(get_args(Kind))}")
    reader = _read_choice if kind == "choice" else _read_numbers
    dimension = reader(key, kind, written)  # type: ignore[arg-type]
    if dimension is None:
        raise ConfigError(f"{where}: {key} {kind} expects {_FORMS[kind]}, got {shown(written)}")
    return dimension


def _read_choice(key: str, kind: Kind, written: str) -> Dimension | None:
    values = parse_value(written)
    if not isinstance(values, (list, tuple)) or not values:
        return None
    stored = [value if isinstance(value, _SCALARS) else repr(value) for value in values]
    finite = all(math.isfinite(value) for value in stored if isinstance(value, float))
    # Optuna finds a choice by equality, in which 1, 1.0 and True are one.
    distinct = all(one != other for place, one in enumerate(stored) for other in stored[:place])
    return Dimension(key, kind, tuple(stored)) if finite and distinct else None


def _read_numbers(key: str, kind: Kind, written: str) -> Dimension | None:
    texts = tuple(part.strip() for part in written.split(","))
    try:
        numbers = [float(text) for text in texts]
        exact = [Fraction(text) for text in texts if math.isfinite(float(text))]
    except ValueError:
        return None
    wanted = 3 if kind == "quniform" else 2
    if len(numbers) != wanted or len(exact) != wanted or numbers[0] > numbers[1] or (wanted == 3 and numbers[2] <= 0):
        return None
    if kind == "loguniform" and not all(-_MOST_EXPONENT < number < _MOST_EXPONENT for number in numbers):
        return None
    return Dimension(key, kind, (), texts)
