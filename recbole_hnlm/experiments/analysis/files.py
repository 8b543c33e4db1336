"""What an analysis writes: JSON for programs, CSV for spreadsheets, PNG for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.files import write_json
from recbole_hnlm.utils.row_files import row_writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["write_analysis", "write_tables"]

_GROUP_COLUMNS: dict[str, type] = {
    **{"run_id": str, "label": str, "seed": int, "side": str, "group": str, "from": int, "to": int, "size": int},
    **{"weight": float, "metric": str, "value": float, "low": float, "high": float, "contribution": float},
}
_LIST_COLUMNS: dict[str, type] = {"run_id": str, "label": str, "seed": int, "metric": str, "value": float}
_SEMANTIC_COLUMNS: dict[str, type] = {
    **{"run_id": str, "label": str, "seed": int, "section": str, "name": str, "quantity": str, "value": float}
}
_EPOCH_COLUMNS: dict[str, type] = {"run_id": str, "label": str, "seed": int, "epoch": int, "quantity": str, "value": float}


def write_tables(analyses: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Write tables of one or several analyses; tables without a row are left out.

    Args:
        analyses: of :func:`recbole_hnlm.experiments.analysis.build.analyse`.
        folder: where they go.

    Returns:
        Names of the files.

    Raises:
        ArtifactError: a file cannot be written.
    """
    tables = {
        "groups.csv": (_GROUP_COLUMNS, [row for analysis in analyses for row in _group_rows(analysis)]),
        "beyond_accuracy.csv": (_LIST_COLUMNS, [row for analysis in analyses for row in _list_rows(analysis)]),
        "semantic.csv": (_SEMANTIC_COLUMNS, [row for analysis in analyses for row in _semantic_rows(analysis)]),
        "epochs.csv": (_EPOCH_COLUMNS, [row for analysis in analyses for row in _epoch_rows(analysis)]),
    }
    written = []
    for name, (columns, rows) in tables.items():
        if rows:
            with row_writer(folder / name, columns) as append:
                append(dict(zip(columns, zip(*rows, strict=True), strict=True)))
            written.append(name)
    return written


def write_analysis(analysis: Mapping[str, Any], folder: Path) -> Path:
    """Write ``analysis.json``; returns its path.

    Raises:
        ArtifactError: it cannot be written.
    """
    path = folder / "analysis.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, analysis)
    return path


def _names(analysis: Mapping[str, Any]) -> tuple[Any, ...]:
    return analysis["run_id"], analysis["label"], analysis["seed"]


def _group_rows(analysis: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            *(*_names(analysis), side, group["name"], group["low"], group["high"], group["size"], group["weight"]),
            *(metric, found["value"], found["low"], found["high"], found["contribution"]),
        )
        for side, table in (analysis["groups"] or {}).items()
        for group in table["groups"]
        for metric, found in group["values"].items()
    ]


def _list_rows(analysis: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(*_names(analysis), metric, value) for metric, value in (analysis["beyond_accuracy"] or {}).items()]


def _semantic_rows(analysis: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    near, shift = analysis["semantic_negatives"] or {}, analysis["semantic_shift"] or {}
    kinds = {f"nearest {count}": found for count, found in near.get("nearest", {}).items()}
    kinds |= {"random": near["random"]} if near else {}
    rows = []
    for name, found in kinds.items():
        quantities = {"held_out_share": found["held_out_share"]}
        quantities |= {f"model_rank {key}": value for key, value in (found["model_rank"] or {}).items()}
        quantities |= {f"model_top {key}": value for key, value in (found["model_top"] or {}).items()}
        rows += [("semantic_negatives", name, quantity, value) for quantity, value in quantities.items()]
    for name, found in shift.get("distributions", {}).items():
        rows += [("semantic_shift", name, key, value) for key, value in found.items() if key != "shares"]
    return [(*_names(analysis), *row) for row in rows]


def _epoch_rows(analysis: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    training = dict(analysis["training"])
    series = {name: values for name, values in training.items() if isinstance(values, list)}
    series |= {name: values for name, values in (training.get("hardness") or {}).items() if isinstance(values, list)}
    return [
        (*_names(analysis), epoch, name, value)
        for name, values in series.items()
        for epoch, value in enumerate(values)
        if isinstance(value, (int, float))
    ]
