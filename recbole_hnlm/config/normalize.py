"""Ways of writing values, brought into the one form that RecBole and our code read."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.values import parse_value

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PATH_KEYS", "normalize"]

PATH_KEYS = (
    "data_path",
    "checkpoint_dir",
    "artifact_dir",
    "results_dir",
    "log_dir",
    "resume",
    "finetune_from",
    "llm_model",
    "text_encoder",
    "pre_model_path",
    "pretrain_path",
    "mf_pretrain_path",
    "mlp_pretrain_path",
)
_SEPARATOR_KEYS = ("field_separator", "seq_separator")
# Lists of RecBole's whose default is null.
_LIST_KEYS = (
    "alias_of_user_id",
    "alias_of_item_id",
    "alias_of_entity_id",
    "alias_of_relation_id",
    "normalize_field",
    "benchmark_filename",
    "additional_feat_suffix",
)
_COLUMN_KEYS = ("load_col", "unload_col", "unused_col")
# Numbers that RecBole's files write without a point although a fraction makes sense.
_REAL_KEYS = frozenset({"resolution", "w_max", "w_min", "negative_weight", "q"})


def normalize(final: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    r"""Rewrite a configuration in place.

    Lists may be given as ``a,b`` or as one element, ``load_col`` entries too; whole floats become integers where the default
    is one; ``~`` is the home folder in paths; separators may be spelt ``\t``.

    Args:
        final: the merged configuration.
        defaults: the shipped one, whose types decide.
    """
    for key, value in final.items():
        default = defaults.get(key)
        if value is not None and (isinstance(default, list) or key in _LIST_KEYS or key in {"topk", "metrics"}):
            final[key] = _as_list(value, numbers=isinstance(default, list) and not any(isinstance(x, str) for x in default))
        elif is_whole_key(key, default) and isinstance(value, float) and value.is_integer():
            final[key] = int(value)
    for key in _COLUMN_KEYS:
        if isinstance(final.get(key), dict):
            final[key] = {source: names if names == "*" else _as_list(names) for source, names in final[key].items()}
    _normalize_texts(final)


def _normalize_texts(final: dict[str, Any]) -> None:
    """Rewrite paths, separators and the one suffix given as a text."""
    for key in PATH_KEYS:
        if isinstance(final.get(key), str) and final[key].startswith("~"):
            final[key] = _home(final[key])
    for key in _SEPARATOR_KEYS:
        if isinstance(final.get(key), str):
            final[key] = _separator(final[key])
    if isinstance(final.get("additional_feat_suffix"), str):
        final["additional_feat_suffix"] = [final["additional_feat_suffix"]]


def is_whole_key(key: str, default: Any) -> bool:
    """Whether a key takes whole numbers alone, by its default."""
    return isinstance(default, int) and not isinstance(default, bool) and key not in _REAL_KEYS


def _as_list(value: Any, *, numbers: bool = False) -> Any:
    """Make a list of ``a,b``, of a tuple or of one element; anything else is left to the checks."""
    if isinstance(value, (list, tuple)):
        return [_whole(part) if numbers else part for part in value]
    if isinstance(value, str):
        parts = [part.strip() for part in value.strip("[]()").split(",")]
        return [_whole(parse_value(part)) if numbers else part for part in parts if part]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [_whole(value) if numbers else value]
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1 else value


def _home(path: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # no such user: the folder is looked for under its written name
        return path


def _separator(text: str) -> str:
    r"""Read ``\t``, ``\\t``, ``'\t'``, ``tab`` and ``\x1f`` as the character that they stand for."""
    bare = text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"" else text
    if bare.lower() == "tab":
        return "\t"
    if re.search(r"\\+(?:t|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})", bare) and bare.isascii():
        return codecs.decode(re.sub(r"\\+", r"\\", bare), "unicode_escape")
    return bare
