"""Checkpoints of an unfinished fine-tuning: those that are whole, found by the digests of their files.

transformers writes a checkpoint as a folder of several files. The list of them, with their digests, is written last, so that a
folder without it was not finished, and one with a damaged file is not continued from.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import file_digest, read_manifest, require_entries, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["complete_checkpoints", "remove_incomplete", "seal_checkpoint", "step_of"]

_LIST = "files.json"
_logger = logging.getLogger(__name__)


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint was written after, from its name; -1 for a name that is not a checkpoint's."""
    step = checkpoint.name.rsplit("-", 1)[-1]
    return int(step) if step.isdecimal() and len(step) < 10 else -1


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _LIST)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}


def seal_checkpoint(folder: Path) -> None:
    """Write the list of a checkpoint's files once all of them are there.

    Raises:
        ArtifactError: the list cannot be written.
    """
    write_manifest(folder / _LIST, {"step": step_of(folder), "files": _files(folder)})


def _why_not(folder: Path) -> str | None:
    """Return why a folder is no checkpoint to continue from, or None."""
    if not (folder / _LIST).is_file():
        return "it was not finished"
    try:
        content = read_manifest(folder / _LIST, "it is left out")
        require_entries(content, folder / _LIST, {"step": int, "files": dict}, "it is left out")
        found = _files(folder)
    except ArtifactError as error:
        return str(error)
    if content["step"] != step_of(folder):
        return f"it is of step {content['step']}"
    differ = sorted(name for name in content["files"].keys() | found.keys() if content["files"].get(name) != found.get(name))
    return f"{differ[0]} is damaged, missing or was added" if differ else None


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of an unfinished fine-tuning by ascending step."""
    return sorted((path for path in folder.glob("checkpoint-*") if _why_not(path) is None), key=step_of)


def remove_incomplete(folder: Path) -> list[Path]:
    """Delete the checkpoints that cannot be continued from, with one line each; returns the others by ascending step."""
    kept = []
    for path in sorted(folder.glob("checkpoint-*"), key=step_of):
        if (reason := _why_not(path)) is None:
            kept.append(path)
        else:
            _logger.warning("checkpoint %s is deleted, and its steps are done again: %s", path, reason)
            shutil.rmtree(path, ignore_errors=True)
    return kept
