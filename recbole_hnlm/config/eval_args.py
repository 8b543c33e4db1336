"""RecBole's ``eval_args``: every value, its number of parts, and the metrics that go with it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from recbole.utils import EvaluatorType

from recbole_hnlm.evaluator.registry import metric_classes
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_eval_args"]

_LEAVE_ONE_OUT = ("valid_and_test", "valid_only", "test_only")
_MODE = re.compile(r"full|labeled|(?:uni|pop)[1-9][0-9]*")
_SPLIT_FORM = "one of {'RS':[0.8,0.1,0.1]}, {'LS':'valid_and_test'} and {'TS':[0.8,0.1,0.1]}"


def check_eval_args(config: Mapping[str, Any], inter_columns: Mapping[str, str] | None) -> list[str]:
    """Check split, order, grouping and mode.

    Args:
        config: with ``eval_args``, ``metrics`` as a list, ``threshold`` and ``LABEL_FIELD``.
        inter_columns: the loaded columns of the interactions; None where the files are not known yet.
    """
    eval_args = config.get("eval_args")
    if not isinstance(eval_args, dict):
        return []
    problems = []
    if config.get("benchmark_filename") is None:
        problems += _split_problems(eval_args.get("split"))
        if eval_args.get("order") not in ("RO", "TO"):
            problems.append(f"eval_args order: expected RO (random) or TO (by time), got {shown(eval_args.get('order'))}")
        if str(eval_args.get("group_by")).lower() not in {"user", "none"}:
            problems.append(f"eval_args group_by: expected user or none, got {shown(eval_args.get('group_by'))}")
    return problems + _mode_problems(eval_args.get("mode"), config, inter_columns)


def _split_problems(split: Any) -> list[str]:
    if not isinstance(split, dict) or len(split) != 1 or not set(split) <= {"RS", "LS", "TS"}:
        return [f"eval_args split: expected {_SPLIT_FORM}, got {shown(split)}"]
    ((kind, parts),) = split.items()
    if kind == "LS":
        if isinstance(parts, str) and parts in _LEAVE_ONE_OUT:
            return []
        return [f"eval_args split LS: expected one of {', '.join(_LEAVE_ONE_OUT)}, got {shown(parts)}"]
    form = f"eval_args split {kind}: expected three shares for training, validation and test such as [0.8,0.1,0.1]"
    if not (isinstance(parts, list) and len(parts) == 3 and all(_is_share(share) for share in parts)):
        return [f"{form}, got {shown(parts)}"]
    if min(parts) < 0 or parts[0] == 0 or (kind == "TS" and parts[0] + parts[1] == 0):
        return [f"{form}, none of them negative and the first above 0, got {shown(parts)}"]
    return []


def _is_share(share: Any) -> bool:
    return isinstance(share, (int, float)) and not isinstance(share, bool) and math.isfinite(share)


def _mode_problems(mode: Any, config: Mapping[str, Any], inter_columns: Mapping[str, str] | None) -> list[str]:
    if isinstance(mode, dict) and (not mode or not set(mode) <= {"valid", "test"}):
        return [f"eval_args mode: expected the keys valid and test, got {shown(mode)}"]
    modes = list(mode.values()) if isinstance(mode, dict) else [mode]
    wrong = [value for value in modes if not (isinstance(value, str) and _MODE.fullmatch(value))]
    if wrong:
        return [f"eval_args mode: expected full, uniN, popN or labeled (N as in uni100), got {shown(wrong[0])}"]
    if "labeled" not in modes:
        return []
    metrics = config.get("metrics")
    names = [str(name).lower() for name in metrics] if isinstance(metrics, list) else []
    classes = metric_classes()
    if any(name in classes and classes[name].metric_type == EvaluatorType.RANKING for name in names):
        return [
            "eval_args mode labeled goes with value metrics: --metrics=AUC,LogLoss --valid_metric=AUC; for ranking metrics use "
            "mode full or uniN"
        ]
    label = str(config.get("LABEL_FIELD"))
    if config.get("threshold") is None and inter_columns is not None and label not in inter_columns:
        return [
            f"eval_args mode labeled needs labels: load a column {label} (LABEL_FIELD) or make them of ratings with "
            "--threshold={'rating':3}"
        ]
    return []
