"""Files that a stage leaves behind: written atomically, described by a manifest, refused when they do not match it.

A manifest is written last, so that a file without one is not an artefact. It records what the file was made from
(``inputs``, a digest) and the digest of the file itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from recbole_hnlm.utils.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "MANIFEST_FORMAT",
    "JsonlArtifact",
    "disk_errors_reported",
    "exclusive_writer",
    "file_digest",
    "read_json",
    "refuse_objects",
    "replacing",
    "swapped_in",
    "text_digest",
    "write_atomically",
    "write_json",
]

MANIFEST_FORMAT = 1
_BLOCK_BYTES = 1 << 20
_logger = logging.getLogger(__name__)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def swapped_in(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place once the block ends without an error.

    Raises:
        OSError: whatever the system says; an earlier file of that name is left as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _fsync(partial)
        partial.replace(path)
        _fsync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """As :func:`swapped_in`, with a failed write reported as one line.

    Raises:
        ArtifactError: the disk is full or the place cannot be written; an earlier file of that name is left as it was.
    """
    target = Path(path)
    try:
        with swapped_in(target) as partial:
            yield partial
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise ArtifactError(f"cannot write {target}: {what}; free space or choose another folder, then run again") from error


@contextmanager
def disk_errors_reported(path: Path) -> Iterator[None]:
    """Turn a failed write below ``path`` (full disk, quota, missing permission) into one line.

    Raises:
        ArtifactError: the path, the system's reason and what to do; whatever was complete before stays as it was.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtifactError(
            f"cannot write below {path}: {reason}; what was finished is kept: make room there or choose another folder "
            "with --artifact_dir, then run the same command again"
        ) from error


def write_atomically(path: Path, chunks: Iterable[bytes]) -> str:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: target; its folder is made when absent.
        chunks: content in order; it is streamed, not held.

    Returns:
        The SHA-256 of the content, in hex.

    Raises:
        ArtifactError: the file cannot be written.
    """
    digest = hashlib.sha256()
    with disk_errors_reported(path.parent), swapped_in(path) as temporary, temporary.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def write_json(path: Path, content: Any) -> str:
    """Write ``content`` as UTF-8 JSON atomically and return its SHA-256.

    Raises:
        ArtifactError: the file cannot be written.
    """
    return write_atomically(path, [json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")])


def read_json(path: Path) -> Any:
    """Read a JSON file of an artefact.

    Raises:
        ArtifactError: the file is absent, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: its folder is not a finished artefact") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}): delete {path.parent} and run the stage again") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex, read in blocks.

    Raises:
        ArtifactError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def text_digest(parts: Iterable[str]) -> str:
    """SHA-256 in hex of a sequence of texts; each part's length enters, so that no two sequences collide by joining."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


@contextmanager
def exclusive_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for writing; a second process waits until the first is done or has died.

    Args:
        folder: made when absent. The lock is its file ``.lock``; whoever holds it must not ask for it again.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with disk_errors_reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _logger.warning("another process is building artefacts in %s; waiting for it to finish", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class JsonlArtifact:
    """A JSON-lines file with a manifest beside it (``NAME.jsonl`` and ``NAME.manifest.json``).

    Attributes:
        folder: folder of both files.
        name: file name without suffix.
    """

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The JSON-lines file."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def manifest_path(self) -> Path:
        """The manifest, written after the file it describes."""
        return self.folder / f"{self.name}.manifest.json"

    def is_made_from(self, inputs: str) -> bool:
        """Whether the artefact is complete and was made from inputs with this digest.

        Raises:
            ArtifactError: the manifest is not JSON.
        """
        if not self.manifest_path.exists():
            return False
        manifest = self.manifest()
        if manifest.get("format") != MANIFEST_FORMAT or manifest.get("inputs") != inputs:
            return False
        return self.path.exists() and file_digest(self.path) == manifest.get("sha256")

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            ArtifactError: the manifest is absent or not a JSON object.
        """
        content = read_json(self.manifest_path)
        if not isinstance(content, dict):
            raise ArtifactError(f"{self.manifest_path} is corrupt (expected a JSON object): delete it and run the stage again")
        return content

    def write(self, rows: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any]) -> None:
        """Write the rows, then the manifest with the file's digest.

        Raises:
            ArtifactError: a file cannot be written.
        """
        lines = (json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in rows)
        digest = write_atomically(self.path, lines)
        write_json(self.manifest_path, {"format": MANIFEST_FORMAT, **manifest, "sha256": digest})

    def read(self) -> list[dict[str, Any]]:
        """Read all rows after checking the file against its manifest.

        Raises:
            ArtifactError: the manifest is absent, or the file is not the one it describes.
        """
        expected = self.manifest().get("sha256")
        found = file_digest(self.path)
        if found != expected:
            raise ArtifactError(
                f"{self.path} is corrupt or was edited: its SHA-256 is {found[:12]}..., its manifest says "
                f"{str(expected)[:12]}...; delete it and run the stage again (replies come back from the cache)"
            )
        with self.path.open("rb") as file:
            return [json.loads(line.decode("utf-8", "surrogatepass")) for line in file]


def refuse_objects(path: Path) -> None:
    """Refuse a NumPy file that is no plain array of numbers: arrays of objects are pickles, which run code when loaded.

    Raises:
        DataError: it holds objects, or is no NumPy file.
    """
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is no plain array of numbers (it may hold a pickle, which runs code) and is not loaded; write it with "
            "numpy.save from an array of floats"
        ) from error
