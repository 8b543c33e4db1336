"""A finished cell on disk: ``cells/<id>.json`` (the run's record) and ``cells/<id>.npz`` (metrics and list of each user).

The record holds the digest of the other file and of itself, so that a damaged file, or one of another cell, is noticed.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import BROKEN_ARRAY, file_digest, replacing, text_digest
from recbole_hnlm.utils.values import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from recbole_hnlm.experiments.cells import Cell

__all__ = ["LISTS", "FinishedCell", "is_finished", "of_other_code", "read_cell", "write_cell"]

_LOGGER = logging.getLogger("recbole_hnlm")
LISTS = "lists"
"""Name of the recommended items among a cell's arrays; cells of older versions lack it."""


@dataclass(frozen=True)
class FinishedCell:
    """The result of a cell.

    Attributes:
        cell: what was run.
        record: the run's results file.
        users: raw user ids of the test split, ``[U]``.
        values: metric (such as ``ndcg@20``) to its value for each user, ``[U]``.
    """

    cell: Cell
    record: dict[str, Any]
    users: npt.NDArray[np.str_]
    values: dict[str, npt.NDArray[np.float32]]


def _paths(folder: Path, identity: str) -> tuple[Path, Path]:
    return folder / "cells" / f"{identity}.json", folder / "cells" / f"{identity}.npz"


def is_finished(folder: Path, cell: Cell) -> bool:
    """Whether both files of a cell are there and whole; the JSON is written last.

    Files that are damaged or of another cell are set aside as ``<name>.damaged``, with one line, so that the cell runs again.
    """
    paths = _paths(folder, cell.id)
    if not all(path.is_file() for path in paths):
        return False
    try:
        read_cell(folder, cell)
    except ArtifactError as error:
        _LOGGER.warning("%s", error)
        for path in paths:
            path.replace(path.with_name(f"{path.name}.damaged"))
        return False
    return True


def _digest(content: Mapping[str, Any]) -> str:
    return text_digest([json.dumps(content, sort_keys=True)])


def of_other_code(folder: Path, cells: Sequence[Cell]) -> list[str]:
    """Return ids of finished cells that have the settings of one of these but were trained by another state of the code."""
    found = []
    for cell in cells:
        stem = cell.id.removesuffix(f"-{cell.code}")
        found += [path.stem for path in sorted((folder / "cells").glob(f"{stem}-*.json")) if path.stem != cell.id]
    return list(dict.fromkeys(found))


def write_cell(  # noqa: PLR0917 -- what a cell is made of
    folder: Path,
    identity: str,
    record: Mapping[str, Any],
    users: npt.NDArray[np.str_],
    values: Mapping[str, npt.NDArray[np.float32]],
    lists: npt.NDArray[np.int32] | None = None,
) -> None:
    """Write a finished cell.

    Args:
        folder: the comparison's folder.
        identity: the cell's id.
        record: the run's record.
        users: ``[U]`` raw ids as text.
        values: metric to ``[U]`` float32.
        lists: recommended items of each user on the test split, internal ids, best first, ``[U, max(topk)]``.

    Raises:
        ArtifactError: a file cannot be written.
    """
    described, table = _paths(folder, identity)
    described.unlink(missing_ok=True)  # the record of an earlier run does not fit the new table
    more = {} if lists is None else {LISTS: lists}
    with replacing(table) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, users=users, **dict(values), **more)
    content = {"cell": identity, **plain(dict(record)), "per_user_sha256": file_digest(table)}
    # Read back as a reader will: keys as text.
    content["sha256"] = _digest(json.loads(json.dumps(content)))
    with replacing(described) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_cell(folder: Path, cell: Cell) -> FinishedCell:
    """Read what :func:`write_cell` wrote.

    Raises:
        ArtifactError: a file is damaged or of another cell.
    """
    described, table = _paths(folder, cell.id)
    try:
        record = json.loads(described.read_text(encoding="utf-8"))
        expected = {"cell": cell.id, "sha256": _digest({key: value for key, value in record.items() if key != "sha256"})}
        expected["per_user_sha256"] = file_digest(table)
        wrong = [key for key, value in expected.items() if record.get(key) != value]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} does not fit, so that a file is damaged or of another cell")
        with np.load(table, allow_pickle=False) as arrays:
            users = arrays["users"]
            values = {name: arrays[name] for name in arrays.files if name not in {"users", LISTS}}
    except (ArtifactError, *BROKEN_ARRAY, AttributeError, KeyError, RecursionError) as error:
        raise ArtifactError(
            f"cell {cell.id} in {described.parent} cannot be used: {error}; its files are set aside and it runs again"
        ) from error
    return FinishedCell(cell, record, users, values)
