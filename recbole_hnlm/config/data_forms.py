"""Forms of RecBole's data keys, checked before any file is looked at: dictionaries, lists of names, intervals, names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.intervals import interval_problem
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INTER_NUM_KEYS", "check_forms"]

INTER_NUM_KEYS = tuple(f"{name}_interval" for name in ("user_inter_num", "item_inter_num", "entity_kg_num", "relation_kg_num"))
_FILTER_KEYS = ("val_interval", "threshold", "unused_col", "preload_weight", "seq_len", "discretization")
_NAME_LIST_KEYS = ("alias_of_user_id", "alias_of_item_id", "normalize_field", "benchmark_filename", "additional_feat_suffix")
_COLUMN_KEYS = ("load_col", "unload_col", "unused_col")
_FIELD_KEYS = ("USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD")
_DUPLICATES = (None, "first", "last")


def check_forms(config: Mapping[str, Any]) -> list[str]:
    """Check the form of RecBole's data keys, before anything is read: dictionaries, lists of names, intervals."""
    problems = [line for key in INTER_NUM_KEYS for line in interval_problem(key, config.get(key))]
    for key in (*_FILTER_KEYS, "load_col", "unload_col"):
        value = config.get(key)
        if value is not None and not isinstance(value, dict):
            every = " (null for all columns)" if key == "load_col" else ""
            problems.append(f"{key}: expected a dictionary such as {_example(key)}{every}, got {shown(value)}")
    for key in _COLUMN_KEYS:
        value = config.get(key)
        for source, names in value.items() if isinstance(value, dict) else ():
            if not (names == "*" or _are_names(names)):
                problems.append(f"{key}: for {shown(source)} expected a list of columns or '*', got {shown(names)}")
    problems += [
        f"{key}: expected a list of names such as [a,b], got {shown(config[key])}"
        for key in _NAME_LIST_KEYS
        if config.get(key) is not None and not _are_names(config[key])
    ]
    return [*problems, *_field_name_problems(config), *_file_part_problems(config), *_number_problems(config)]


def _field_name_problems(config: Mapping[str, Any]) -> list[str]:
    """Check the keys that name columns: texts, and of the ids, labels and times no two alike."""
    problems, seen = [], dict[str, str]()
    for key in _FIELD_KEYS:
        name = config.get(key)
        if not isinstance(name, str) or not name.strip():
            problems.append(f"{key}: expected the name of a column, got {shown(name)}")
        elif seen.setdefault(name, key) != key:
            problems.append(f"{seen[name]} and {key} both name column {shown(name)}: they have to differ")
    prefix = config.get("NEG_PREFIX")
    if not isinstance(prefix, str) or not prefix:
        problems.append(f"NEG_PREFIX: expected a prefix such as neg_, got {shown(prefix)}")
    return problems


def _file_part_problems(config: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("benchmark_filename", "additional_feat_suffix"):
        names = config.get(key)
        if _are_names(names) and any(set("/\\") & set(name) or ".." in name for name in names or ()):
            problems.append(f"{key}: expected parts of file names without / and .., got {shown(names)}")
    parts = config.get("benchmark_filename")
    if parts is not None and not (isinstance(parts, list) and len(parts) == 3):
        problems.append(f"benchmark_filename: expected three parts such as [train,valid,test], got {shown(parts)}")
    if config.get("rm_dup_inter") not in _DUPLICATES:
        problems.append(f"rm_dup_inter: expected first, last or null, got {shown(config['rm_dup_inter'])}")
    return problems


def _number_problems(config: Mapping[str, Any]) -> list[str]:
    problems = []
    threshold = config.get("threshold")
    if isinstance(threshold, dict) and not (len(threshold) == 1 and all(_is_number(value) for value in threshold.values())):
        problems.append(f"threshold: expected one column and a number such as {{'rating':3}}, got {shown(threshold)}")
    lengths = config.get("seq_len")
    if isinstance(lengths, dict) and not all(isinstance(size, int) and size > 0 for size in lengths.values()):
        problems.append(f"seq_len: expected positive integers such as {{'title':20}}, got {shown(lengths)}")
    methods = config.get("discretization")
    if isinstance(methods, dict) and not all(_is_method(value) for value in methods.values()):
        problems.append(
            f"discretization: expected for each column {{'method':'ED','bucket':10}} or {{'method':'LD'}}, got {shown(methods)}"
        )
    return problems


def _example(key: str) -> str:
    examples = {
        "val_interval": "{'rating':'[3,inf)'}",
        "threshold": "{'rating':3}",
        "seq_len": "{'title':20}",
        "preload_weight": "{'item_id':'vector'}",
        "discretization": "{'price':{'method':'ED','bucket':10}}",
    }
    return examples.get(key, "{'inter':['user_id','item_id','rating']}")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _is_method(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= {"method", "bucket"}:
        return False
    buckets = value.get("bucket")
    return value.get("method") == "LD" or (value.get("method") == "ED" and isinstance(buckets, int) and buckets >= 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
