"""Columns that filters, order, split and labels need, checked against the headers of the atomic files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole.utils import InputType, ModelType

from recbole_hnlm.config.atomic_headers import FLOAT_TYPES, SOURCES, check_separators, loaded_columns, read_header, shown_names
from recbole_hnlm.config.intervals import INTERVAL_FORM, interval_problem, parse_intervals
from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_columns", "check_labels"]


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
            problems.append(f"load_col and unload_col both name columns of {source}: keep one of them, such as --load_col=None")
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
        return [
            *self._ids(),
            *self._times(),
            *self._ratings(),
            *self._values(),
            *self._threshold(),
            *self._named(),
            *self._left_out(),
        ]

    def _absent(self, reason: str, name: str, sources: tuple[str, ...]) -> list[str]:
        """Return a line unless a column is loaded from one of the sources."""
        if any(name in self._loaded.get(source, ()) for source in sources):
            return []
        for source in sources:
            if name in self._everything.get(source, ()):
                return [
                    f"{reason} needs column {name}, which {self._files[source][0]} has but load_col leaves out: "
                    f"{self._load_option(source, name)}"
                ]
        where = str(self._files["inter"][0]) if sources == ("inter",) else f"no file of {self._files['inter'][0].parent}"
        verb = "does not have" if sources == ("inter",) else "has"
        found = dict.fromkeys(name for source in sources for name in self._everything.get(source, ()))
        return [f"{reason} needs column {shown(name)}, which {where} {verb} (found {shown_names(found)})"]

    def _load_option(self, source: str, name: str) -> str:
        """Write ``load_col`` with one more column, and with the id column that RecBole joins the file by."""
        loaded = {key: list(columns) for key, columns in self._loaded.items()}
        ids = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}
        joined_by = [str(self._config[ids[source]])] if source in ids else []
        loaded[source] = list(dict.fromkeys([*loaded.get(source, joined_by), name]))
        parts = [f"'{key}':[{','.join(columns)}]" for key, columns in loaded.items()]
        return f"--load_col={{{','.join(parts)}}}"

    def _ids(self) -> list[str]:
        names = {str(self._config[key]): key for key in ("USER_ID_FIELD", "ITEM_ID_FIELD")}
        header, loaded, file = self._everything["inter"], self._loaded.get("inter", {}), self._files["inter"][0]
        problems = []
        unloaded = [name for name in names if name in header and name not in loaded]
        if unloaded:
            problems.append(f"load_col leaves out {' and '.join(unloaded)} of {file}, without which there are no interactions")
        for name, key in names.items():
            if name not in header:
                problems.append(f"{file} has no column {shown(name)} ({key}), found {shown_names(header)}: set --{key}")
            elif loaded.get(name, "token") != "token":
                problems.append(f"{file}: column {name} ({key}) is of type {loaded[name]}, expected {name}:token")
        for (name, key), source in zip(names.items(), ("user", "item"), strict=False):
            problems += self._joined(source, name, key)
        return problems

    def _joined(self, source: str, name: str, key: str) -> list[str]:
        """Check the id column by which a file of users or items is joined, where any of its columns is loaded."""
        loaded = self._loaded.get(source)
        if loaded and name not in loaded:
            return [
                f"{self._files[source][0]} has no column {name} ({key}), or load_col leaves it out, and its other columns "
                f"cannot be loaded without it (found {shown_names(self._everything[source])})"
            ]
        if (loaded or {}).get(name, "token") != "token":
            return [f"{self._files[source][0]}: column {name} ({key}) is not of type token, expected {name}:token"]
        return []

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

    def _ratings(self) -> list[str]:
        """DMF can read how an item was rated."""
        if self._config.get("inter_matrix_type") != "rating":
            return []
        return self._absent("inter_matrix_type rating (RATING_FIELD)", str(self._config.get("RATING_FIELD")), ("inter",))

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

    def _left_out(self) -> list[str]:
        """Check that the columns to leave out exist, and that nothing needs those that are dropped after loading."""
        problems = []
        for key in ("unload_col", "unused_col"):
            for source, names in (self._config.get(key) or {}).items():
                header = self._everything.get(source, {})
                absent = [name for name in names if name not in header] if names != "*" else []
                if source not in self._files:
                    problems.append(f"{key}: there is no file of {shown(source)}, found those of {', '.join(self._files)}")
                elif absent:
                    problems.append(f"{key} names column {shown_names(absent)}, which {self._files[source][0]} does not have")
        needed = {str(self._config[key]) for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "LABEL_FIELD")}
        for source, names in (self._config.get("unused_col") or {}).items():
            if names == "*":
                problems.append(f"unused_col: expected a list of columns for {source}, got '*'")
            elif source in self._files and source not in self._loaded:
                problems.append(f"unused_col names columns of {source}, of which load_col loads none")
            elif needed & set(names):
                problems.append(f"unused_col names {' and '.join(sorted(needed & set(names)))}, which training needs")
        known = dict.fromkeys(name for columns in self._everything.values() for name in columns)
        lengths = [name for name in self._config.get("seq_len") or {} if name not in known]
        if lengths:
            problems.append(f"seq_len names column {shown_names(lengths)}, which no file has (found {shown_names(known)})")
        return problems


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
