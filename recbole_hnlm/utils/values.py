"""Configuration values: reading them from text and YAML without evaluating code, merging them, and making them plain."""

from __future__ import annotations

import ast
import math
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.given_paths import input_file
from recbole_hnlm.utils.showing import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "NESTED_KEYS",
    "ConfigLoader",
    "load_yaml",
    "merge",
    "parse_value",
    "plain",
    "refuse_unbounded",
    "shown",
    "split_argv",
    "without_null_words",
    "without_numpy",
]

# RecBole's dictionaries whose sub-keys are separate settings: given in part, they are merged over the defaults.
NESTED_KEYS: dict[str, frozenset[str]] = {
    "eval_args": frozenset({"split", "group_by", "order", "mode"}),
    "train_neg_sample_args": frozenset({"distribution", "sample_num", "alpha", "dynamic", "candidate_num"}),
}

_WORDS = {"true": True, "false": False, "null": None, "none": None, "~": None}
_LITERALS = (str, bool, int, float, list, tuple, dict, type(None))


_MOST_PARTS, _MOST_LEVELS, _MOST_DIGITS, _MOST_BYTES = 100_000, 50, 300, 1 << 20
_TOO_DEEP = "lists or mappings are nested deeper than"


class ConfigLoader(yaml.SafeLoader):
    """YAML's safe loader, which also reads ``1e-5`` as a float (YAML 1.1 asks for ``1.0e-5``).

    A key that one mapping has twice is an error, and nothing may grow without bounds: merge keys (``<<``), nesting, digits.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._flattened: set[int] = set()
        self._merged = 0

    def fetch_flow_collection_start(self, *args: Any) -> None:
        """Begin a list or mapping in brackets; PyYAML's time grows with the square of their depth."""
        if self.flow_level >= _MOST_LEVELS:
            raise yaml.scanner.ScannerError(None, None, f"{_TOO_DEEP} {_MOST_LEVELS} levels", self.get_mark())
        super().fetch_flow_collection_start(*args)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Read a whole number or a float; PyYAML's time grows with the square of ``1:1:1`` and the like."""
        if len(str(node.value)) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number has more than {_MOST_DIGITS} characters", node.start_mark
            )
        whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve merge keys, whose aliases of aliases could double a mapping at every level."""
        if id(node) in self._flattened:
            return
        self._flattened.add(id(node))
        written: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in written:
                raise yaml.constructor.ConstructorError(None, None, f"key {shown(key.value)} is given twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                written.add((key.tag, key.value))
        before = len(node.value)
        super().flatten_mapping(node)
        self._merged += len(node.value) - before
        if self._merged > _MOST_PARTS:
            raise yaml.constructor.ConstructorError(
                None, None, f"merge keys add more than {_MOST_PARTS:,} keys", node.start_mark
            )


for _kind in ("int", "float"):
    ConfigLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", ConfigLoader.construct_number)
ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def refuse_unbounded(value: Any, where: str) -> None:
    """Refuse values that contain themselves, are nested too deep or, through YAML aliases, stand for too many parts.

    Args:
        value: anything; lists, tuples and dictionaries are looked into, each object once.
        where: what holds the value, for the message.

    Raises:
        ConfigError: deeper than 50 levels, or more than 100,000 parts when written out.
    """
    sizes: dict[int, int] = {}

    def size(part: Any, level: int) -> int:
        if isinstance(part, int) and part.bit_length() > _MOST_DIGITS * 3:
            raise ConfigError(f"{where}: {shown(part)} is beyond every number that a key takes")
        if not isinstance(part, (list, tuple, dict)):
            return 1
        if level > _MOST_LEVELS:
            raise ConfigError(f"{where}: values are nested deeper than {_MOST_LEVELS} levels or contain themselves")
        if id(part) not in sizes:
            parts = part.values() if isinstance(part, dict) else part
            sizes[id(part)] = 1 + sum(size(item, level + 1) for item in parts)
        return sizes[id(part)]

    if size(value, 0) > _MOST_PARTS:
        raise ConfigError(f"{where}: written out, its values have more than {_MOST_PARTS:,} parts (aliases of aliases?)")


def without_null_words(value: Any) -> Any:
    """Turn the text ``None`` (in any case) into null, also inside lists and dictionaries, as on the command line."""
    if isinstance(value, str):
        return None if value.strip().lower() == "none" else value
    if isinstance(value, list):
        return [without_null_words(item) for item in value]
    return {key: without_null_words(item) for key, item in value.items()} if isinstance(value, dict) else value


def parse_value(text: str) -> Any:
    """Read a value as a Python literal, else as a YAML list or mapping, else keep it as text.

    ``null``, ``none``, ``~``, ``true`` and ``false`` are understood in any case; nothing is ever evaluated.

    Raises:
        ConfigError: as :func:`refuse_unbounded`.
    """
    stripped = text.strip()
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    try:
        value = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = _parse_collection(stripped, text)
    refuse_unbounded(value, f"value {shown(stripped)}")
    return value if isinstance(value, _LITERALS) else text


def _parse_collection(stripped: str, text: str) -> Any:
    if not stripped.startswith(("[", "{")):
        return text
    try:
        return yaml.load(stripped, Loader=ConfigLoader)  # noqa: S506 - ConfigLoader is a SafeLoader
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return text


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of keys; a file without any key gives an empty dictionary.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML (the line is named) or not a mapping of keys.
    """
    file = input_file(path, "config file", "a YAML file of keys")
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"config file {path} has {file.stat().st_size:,} bytes, expected at most {_MOST_BYTES:,}")
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=ConfigLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read as UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"config file {path}{where}: not valid YAML: {what}") from error
    except RecursionError as error:
        raise ConfigError(f"config file {path}: {_TOO_DEEP} {_MOST_LEVELS} levels") from error
    except (ValueError, LookupError, AttributeError, ArithmeticError) as error:
        # PyYAML's constructors of !!bool, !!timestamp, !!int do not expect other texts than those they resolve themselves.
        raise ConfigError(f"config file {path}: a value cannot be read: {shown(str(error))}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config file {path}: expected lines of `key: value`, got {shown(content)}")
    wrong = next((key for key in content if not isinstance(key, str)), "")
    if not isinstance(wrong, str):
        raise ConfigError(f"config file {path}: expected keys that are names, got {shown(wrong)}")
    refuse_unbounded(content, f"config file {path}")
    return content


def split_argv(argv: Sequence[str]) -> dict[str, str]:
    """Read ``--key=value`` and ``--key value`` into a dictionary of texts.

    Raises:
        ConfigError: a token that is not an option, an option without a value, or one key given two different values.
    """
    texts: dict[str, str] = {}
    tokens = iter(argv)
    for token in tokens:
        if not token.startswith("--") or len(token) == len("--"):
            raise ConfigError(f"unexpected argument {shown(token)}: expected --key=value or --key value")
        key, equals, text = token[2:].partition("=")
        if not key:
            raise ConfigError(f"unexpected argument {shown(token)}: expected --key=value or --key value")
        if not equals:
            following = next(tokens, None)
            if following is None or following.startswith("--"):
                raise ConfigError(f"--{key} has no value: write --{key}=VALUE")
            text = following
        if texts.setdefault(key, text) != text:
            raise ConfigError(f"--{key} is given twice with different values: keep one")
    return texts


def merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated by ``update``, where the dictionaries named in ``NESTED_KEYS`` are merged, not replaced."""
    merged = {**base, **update}
    for key in NESTED_KEYS:
        if isinstance(base.get(key), dict) and isinstance(update.get(key), dict):
            merged[key] = {**base[key], **update[key]}
    return merged


def without_numpy(value: Any) -> Any:
    """Turn NumPy numbers and arrays, also inside lists, tuples and dictionaries, into Python's numbers and lists.

    A tuner hands over ``np.float64``: it passes for a float, but a checkpoint that held one could not be read back safely.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: without_numpy(item) for key, item in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(without_numpy(item) for item in value)
    return value


def plain(value: Any) -> Any:
    """Reduce a value to None, bool, int, float, str, list and dict with str keys; what is not finite becomes None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return value.__name__ if isinstance(value, type) else str(value)
