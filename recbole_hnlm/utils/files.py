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
import tokenize
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from recbole_hnlm.utils.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "BROKEN_ARRAY",
    "MANIFEST_FORMAT",
    "Artifact",
    "JsonlArtifact",
    "disk_errors_reported",
    "disk_failure",
    "exclusive_writer",
    "file_digest",
    "read_json",
    "read_manifest",
    "refuse_objects",
    "replacing",
    "require_entries",
    "swapped_in",
    "text_digest",
    "write_atomically",
    "write_json",
    "write_manifest",
]

# 2: manifests carry a digest of their own entries.
MANIFEST_FORMAT = 2
_SEAL = "manifest_sha256"
_BLOCK_BYTES = 1 << 20
#: What NumPy raises on a file that is no array of its own: it tokenizes and evaluates the header.
BROKEN_ARRAY = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, OverflowError, MemoryError)
# How the writers of torch (two ways) and of safetensors put a failed write.
_WRITER_MARKS = ("unexpected pos", "PytorchStreamWriter", "Error while serializing: I/O error")
_logger = logging.getLogger(__name__)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def swapped_in(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` that takes its place once the block ends without an error.

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


def disk_failure(error: Exception) -> str | None:
    """Return why the disk did not take a write, or None for an error that is not the disk's.

    ``torch.save`` and safetensors raise errors of their own, which say no more than where their writer stopped.
    """
    if isinstance(error, OSError):
        return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return "the disk is full or refused the write" if any(mark in str(error) for mark in _WRITER_MARKS) else None


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
    except Exception as error:
        if (reason := disk_failure(error)) is None:
            raise
        raise ArtifactError(f"cannot write {target}: {reason}; free space or choose another folder, then run again") from error


@contextmanager
def disk_errors_reported(path: Path) -> Iterator[None]:
    """Turn a failed write below ``path`` (full disk, quota, missing permission) into one line.

    Raises:
        ArtifactError: the path, the system's reason and what to do; whatever was complete before stays as it was.
    """
    try:
        yield
    except Exception as error:
        if (reason := disk_failure(error)) is None:
            raise
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


def read_json(path: Path, remedy: str = "delete its folder and run the stage again") -> Any:
    """Read a JSON file of an artefact.

    Args:
        path: the file.
        remedy: what to do when it cannot be used; ends the error's line.

    Raises:
        ArtifactError: the file is absent, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: its folder is not a finished artefact; {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); {remedy}") from error


def file_digest(path: Path, remedy: str = "check that it is there and may be read, then run again") -> str:
    """SHA-256 of a file in hex, read in blocks.

    Args:
        path: the file.
        remedy: what to do when it cannot be read; ends the error's line.

    Raises:
        ArtifactError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; {remedy}") from error
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
        folder: made when absent. The lock is its file ``.lock``; a holder must not ask for it again.

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


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest: ``content``, the format, and a digest over both, so that no entry can change unnoticed.

    Raises:
        ArtifactError: the file cannot be written.
    """
    manifest = {"format": MANIFEST_FORMAT, **content}
    write_json(path, {**manifest, _SEAL: _manifest_digest(manifest)})


def read_manifest(path: Path, remedy: str) -> dict[str, Any]:
    """Read a manifest; one of this format is complete and as it was written.

    Args:
        path: the manifest.
        remedy: what to do when it cannot be used; ends the error's line.

    Raises:
        ArtifactError: it is absent, not a JSON object, or of this format and damaged. Another format is the caller's to refuse.
    """
    manifest = read_json(path, remedy)
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path} is corrupt (found {type(manifest).__name__}, expected a JSON object); {remedy}")
    seal = manifest.pop(_SEAL, None)
    if manifest.get("format") == MANIFEST_FORMAT and (found := _manifest_digest(manifest)) != seal:
        raise ArtifactError(
            f"{path} is corrupt or was edited: the SHA-256 of its entries is {found[:12]}..., it says {str(seal)[:12]}...; "
            f"{remedy}"
        )
    return manifest


def require_entries(manifest: Mapping[str, Any], path: Path, entries: Mapping[str, type], remedy: str) -> None:
    """Refuse a manifest that lacks an entry, or has one of another type.

    Args:
        manifest: its content.
        path: of the manifest, for the message.
        entries: name to type; ``float`` takes whole numbers too.
        remedy: what to do; ends the error's line.

    Raises:
        ArtifactError: names the first entry that is wrong.
    """
    for name, kind in entries.items():
        found = manifest.get(name)
        if not isinstance(found, (int, float) if kind is float else kind) or (isinstance(found, bool) and kind is not bool):
            raise ArtifactError(
                f"{path} is corrupt: {name} is {str(found)[:80] if name in manifest else 'missing'}, expected {kind.__name__}; "
                f"{remedy}"
            )


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    # Through JSON once, since reading turns keys into texts and tuples into lists.
    plain = json.loads(json.dumps(manifest))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A file and the manifest that describes it.

    Attributes:
        path: the file.
        manifest_path: the manifest, written after the file it describes.
        kind: what it is, such as ``teacher``; a manifest of another kind is refused.
        remedy: what to do when either cannot be used; ends every error's line.
        entries: what the manifest must have besides, name to type.
    """

    path: Path
    manifest_path: Path
    kind: str
    remedy: str
    entries: Mapping[str, type] = field(default_factory=dict)

    def exists(self) -> bool:
        """Whether the artefact was finished; :meth:`read_bytes` checks it."""
        return self.manifest_path.exists()

    def write_bytes(self, chunks: Iterable[bytes], manifest: Mapping[str, Any]) -> None:
        """Write the content, which is streamed, then the manifest with its digest.

        Raises:
            ArtifactError: a file cannot be written.
        """
        digest = write_atomically(self.path, chunks)
        write_manifest(self.manifest_path, {"kind": self.kind, **manifest, "sha256": digest})

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            ArtifactError: it is absent, damaged, or of another format or kind.
        """
        manifest = read_manifest(self.manifest_path, self.remedy)
        for name, expected in {"format": MANIFEST_FORMAT, "kind": self.kind}.items():
            if (found := manifest.get(name)) != expected:
                raise ArtifactError(f"{self.manifest_path}: {name} is {str(found)[:80]}, expected {expected}; {self.remedy}")
        require_entries(manifest, self.manifest_path, {"sha256": str, **self.entries}, self.remedy)
        return manifest

    def read_bytes(self) -> bytes:
        """Read the content after checking it against the manifest.

        Raises:
            ArtifactError: the manifest cannot be used, or the file is absent or not the one that it describes.
        """
        expected = str(self.manifest()["sha256"])
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path}: {error.strerror}; {self.remedy}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ArtifactError(
                f"{self.path} is corrupt or was edited: its SHA-256 is {found[:12]}..., its manifest says {expected[:12]}...; "
                f"{self.remedy}"
            )
        return content


class JsonlArtifact(Artifact):
    """JSON lines, ``NAME.jsonl``, with ``NAME.manifest.json`` next to them.

    Args:
        folder: folder of both files.
        name: file name without suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        remedy = "delete both and run the stage again (replies come back from the cache)"
        super().__init__(folder / f"{name}.jsonl", folder / f"{name}.manifest.json", "replies", remedy, {"counts": dict})

    def was_made_from(self, inputs: str) -> bool:
        """Whether the manifest says that the artefact was made from inputs with this digest, whatever became of the file.

        Raises:
            ArtifactError: the manifest is damaged.
        """
        if not self.exists():
            return False
        manifest = read_manifest(self.manifest_path, self.remedy)
        return manifest.get("format") == MANIFEST_FORMAT and manifest.get("inputs") == inputs

    def is_made_from(self, inputs: str) -> bool:
        """Whether the artefact is complete and was made from inputs with this digest.

        Raises:
            ArtifactError: the manifest is damaged.
        """
        return self.was_made_from(inputs) and self.path.is_file() and file_digest(self.path) == self.manifest()["sha256"]

    def write(self, rows: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any]) -> None:
        """Write the rows, then the manifest with the file's digest.

        Raises:
            ArtifactError: a file cannot be written.
        """
        lines = (json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in rows)
        self.write_bytes(lines, manifest)

    def read(self) -> list[dict[str, Any]]:
        """Read all rows after checking the file against its manifest.

        Raises:
            ArtifactError: as :meth:`read_bytes`.
        """
        return [json.loads(line.decode("utf-8", "surrogatepass")) for line in self.read_bytes().split(b"\n") if line]


def refuse_objects(path: Path) -> None:
    """Refuse a NumPy file that is not a plain array of numbers: arrays of objects are pickles, which run code when loaded.

    Raises:
        DataError: it holds objects, or is no NumPy file.
    """
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise DataError(
            f"{path} is not a plain array of numbers (it may hold a pickle, which runs code) and is not loaded; write it with "
            "numpy.save from an array of floats"
        ) from error
