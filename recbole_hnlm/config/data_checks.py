"""Columns that filters, order, split and labels need, checked against the headers of the atomic files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole.utils import InputType, ModelType

from recbole_hnlm.config.atomic_headers import FLOAT_TYPES, SOURCES, check_separators, loaded_columns, read_header
from recbole_hnlm.config.intervals import INTERVAL_FORM, interval_problem, parse_intervals
from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_columns", "check_forms", "check_labels"]

_INTER_NUM_KEYS = tuple(f"{name}_interval" for name in ("user_inter_num", "item_inter_num", "entity_kg_num", "relation_kg_num"))
_FILTER_KEYS = ("val_interval", "threshold", "unused_col", "preload_weight", "seq_len", "discretization")
_NAME_LIST_KEYS = ("alias_of_user_id", "alias_of_item_id", "normalize_field", "benchmark_filename", "additional_feat_suffix")
_COLUMN_KEYS = ("load_col", "unload_col", "unused_col")
_DUPLICATES = (None, "first", "last")


def check_forms(config: Mapping[str, Any]) -> list[str]:
    """Check the form of RecBole's data keys, before anything is read: dictionaries, lists of names, intervals."""
    problems = [line for key in _INTER_NUM_KEYS for line in interval_problem(key, config.get(key))]
    for key in (*_FILTER_KEYS, "load_col", "unload_col"):
        value = config.get(key)
        if value is not None and not isinstance(value, dict):
            problems.append(f"{key}: expected a dictionary such as {_example(key)}, got {shown(value)}")
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
    return [*problems, *_file_part_problems(config), *_number_problems(config)]


def _file_part_problems(config: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("benchmark_filename", "additional_feat_suffix"):
        names = config.get(key)
        if _are_names(names) and any(set("/\\") & set(name) or ".." in name for name in names or ()):
            problems.append(f"{key}: expected parts of file names without / and .., got {shown(names)}")
    if config.get("benchmark_filename") is not None and len(config["benchmark_filename"]) != 3:
        problems.append(
            f"benchmark_filename: expected three parts such as [train,valid,test], got {shown(config['benchmark_filename'])}"
        )
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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_columns(folder: Path, dataset: str, inter_names: list[str], config: Mapping[str, Any]) -> list[str]:
    """Check the headers of a dataset's atomic files, and that every column a key uses is loaded and of the right type.

    Args:
        folder: folder of the atomic files.
        dataset: the stem of their names.
        inter_names: names of the files of interactions, which exist.
        config: the configuration, of which :func:`check_forms` finds no fault.
    """
    problems = check_separators(config)
    if problems:
        return problems
    files = _files(folder, dataset, inter_names, config)
    load, unload = config.get("load_col"), config.get("unload_col") or {}
    for source, names in (load or {}).items():
        if names and source not in files:
            problems.append(f"load_col names columns of {source}, but {folder / f'{dataset}.{source}'} does not exist")
        if names and names != "*" and source in unload:
            problems.append(f"load_col and unload_col both name columns of {source}: keep one of them")
    try:
        loaded = loaded_columns(files, config)
        everything = {
            source: read_header(paths[0], config.get("encoding"), config["field_separator"]) for source, paths in files.items()
        }
    except DataError as error:
        return [*problems, str(error)]
    return [*problems, *_Columns(files, everything, loaded, config).problems()]


def _files(folder: Path, dataset: str, inter_names: list[str], config: Mapping[str, Any]) -> dict[str, list[Path]]:
    suffixes = [*SOURCES[1:], *(config.get("additional_feat_suffix") or [])]
    others = {suffix: [folder / f"{dataset}.{suffix}"] for suffix in suffixes}
    return {
        "inter": [folder / name for name in inter_names],
        **{key: paths for key, paths in others.items() if paths[0].is_file()},
    }


class _Columns:
    """What a dataset's files have, what of it is loaded, and what a configuration asks of it."""

    def __init__(
        self,
        files: Mapping[str, list[Path]],
        everything: Mapping[str, Mapping[str, str]],
        loaded: Mapping[str, Mapping[str, str]],
        config: Mapping[str, Any],
    ) -> None:
        self._files, self._everything, self._loaded, self._config = files, everything, loaded, config
        self._types = {name: kind for columns in loaded.values() for name, kind in columns.items()}
        self._splits = config.get("benchmark_filename") is None

    def problems(self) -> list[str]:
        return [*self._ids(), *self._times(), *self._values(), *self._threshold(), *self._named()]

    def _absent(self, reason: str, name: str, sources: tuple[str, ...]) -> list[str]:
        """Return a line unless a column is loaded from one of the sources."""
        if any(name in self._loaded.get(source, ()) for source in sources):
            return []
        for source in sources:
            if name in self._everything.get(source, ()):
                columns = [*self._loaded.get(source, ()), name]
                return [
                    f"{reason} needs column {name}, which {self._files[source][0]} has but load_col leaves out: "
                    f"--load_col={{'{source}':[{','.join(columns)}]}}"
                ]
        found = ", ".join(name for source in sources for name in self._everything.get(source, ()))
        return [
            f"{reason} needs column {shown(name)}, which {self._files['inter'][0]} does not have (found {shown_names(found)})"
        ]

    def _ids(self) -> list[str]:
        problems = []
        for key, source in (("USER_ID_FIELD", "user"), ("ITEM_ID_FIELD", "item")):
            name = str(self._config[key])
            missing = name not in self._loaded.get("inter", ())
            if missing:
                header = self._everything["inter"]
                what = "load_col leaves out" if name in header else "has no"
                problems.append(
                    f"{self._files['inter'][0]} {what} column {name} (found {', '.join(header)}): set load_col, USER_ID_FIELD "
                    "or ITEM_ID_FIELD"
                )
            elif self._loaded["inter"][name] != "token":
                problems.append(
                    f"{self._files['inter'][0]}: column {name} ({key}) is of type {self._loaded['inter'][name]}, "
                    f"expected {name}:token"
                )
            if self._loaded.get(source) and name not in self._loaded[source]:
                problems.append(
                    f"{self._files[source][0]} has no column {name}, or load_col leaves it out: its other columns cannot be "
                    f"loaded without it (found {', '.join(self._everything[source])})"
                )
            elif self._loaded.get(source, {}).get(name, "token") != "token":
                problems.append(f"{self._files[source][0]}: column {name} ({key}) is not of type token, expected {name}:token")
        return problems

    def _times(self) -> list[str]:
        eval_args = self._config.get("eval_args")
        if not (self._splits and isinstance(eval_args, dict)):
            return []
        split = eval_args.get("split")
        reasons = ["eval_args order TO"] if eval_args.get("order") == "TO" else []
        reasons += ["eval_args split TS"] if isinstance(split, dict) and "TS" in split else []
        name = str(self._config.get("TIME_FIELD"))
        problems = [line for reason in reasons[:1] for line in self._absent(f"{reason} (TIME_FIELD)", name, ("inter",))]
        if reasons and not problems and self._loaded["inter"][name] != "float":
            problems.append(f"{reasons[0]}: column {name} is of type {self._loaded['inter'][name]}, expected {name}:float")
        return problems

    def _values(self) -> list[str]:
        problems = []
        for name, value in (self._config.get("val_interval") or {}).items():
            problems += self._absent("val_interval", name, tuple(self._files)) or self._value(name, value)
        return problems

    def _value(self, name: str, value: Any) -> list[str]:
        kind = self._types[name]
        if kind == "float":
            return (
                interval_problem(f"val_interval of {name}", value)
                if value is not None
                else [f"val_interval of {name}: expected {INTERVAL_FORM}, got null"]
            )
        if kind == "token":
            if isinstance(value, list) and value and all(isinstance(token, str) for token in value):
                return []
            return [
                f"val_interval of {name}, a column of type token: expected a list of texts such as ['a','b'], "
                f"got {shown(value)}"
            ]
        return [f"val_interval of {name}: RecBole cannot filter by a column of type {kind}, expected float or token"]

    def _threshold(self) -> list[str]:
        problems = []
        for name in self._config.get("threshold") or {}:
            problems += self._absent("threshold", name, ("inter",))
            if not problems and self._loaded["inter"][name] != "float":
                problems.append(f"threshold: column {name} is of type {self._loaded['inter'][name]}, expected {name}:float")
        return problems

    def _named(self) -> list[str]:
        problems = []
        for key in ("alias_of_user_id", "alias_of_item_id"):
            for name in self._config.get(key) or []:
                lines = self._absent(key, name, tuple(self._files))
                if not lines and self._types[name] in FLOAT_TYPES:
                    lines = [f"{key}: column {name} is of type {self._types[name]}, expected token or token_seq"]
                problems += lines
        for name in self._config.get("normalize_field") or []:
            lines = self._absent("normalize_field", name, tuple(self._files))
            if not lines and self._types[name] not in FLOAT_TYPES:
                lines = [f"normalize_field: column {name} is of type {self._types[name]}, expected float or float_seq"]
            problems += lines
        return problems


def shown_names(names: str) -> str:
    """Cut a list of column names to what fits into a message."""
    return names if len(names) <= 300 else f"{names[:297]}..."


def check_labels(model_class: Any, config: Mapping[str, Any], inter_columns: Mapping[str, str]) -> list[str]:
    """Refuse 0/1 labels where training does not read them: the rows labelled 0 would be trained as positives.

    Args:
        model_class: the model; it reads labels if it is pointwise and trained without negative sampling.
        config: the configuration, of checked form.
        inter_columns: the loaded columns of the interactions.
    """
    threshold, label = config.get("threshold"), str(config.get("LABEL_FIELD"))
    if not isinstance(threshold, dict) and label not in inter_columns:
        return []
    sampling = config.get("train_neg_sample_args")
    samples = isinstance(sampling, dict) and str(sampling.get("distribution")).lower() != "none"
    is_pointwise = model_class.input_type == InputType.POINTWISE and model_class.type == ModelType.GENERAL
    if is_pointwise and not samples:
        return []
    field, lowest = next(iter(threshold.items())) if isinstance(threshold, dict) and threshold else (label, 1)
    kept = (config.get("val_interval") or {}).get(field)
    if (
        kept is not None
        and not interval_problem(field, kept)
        and all(part.low >= lowest or (field == label and part.low >= 0 and not part.has_low) for part in parse_intervals(kept))
    ):
        return []
    instead = " (or train on the labels: --train_neg_sample_args=None)" if is_pointwise else ""
    source = "threshold" if isinstance(threshold, dict) else f"LABEL_FIELD, column {label}"
    return [
        f"{source}: {model_class.__name__} takes every training row for a positive, those labelled 0 too; leave them out with "
        f"--val_interval={{'{field}':'[{lowest},inf)'}}{instead}"
    ]
