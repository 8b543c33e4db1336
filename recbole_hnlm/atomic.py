"""Writing files so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_hnlm.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replacing", "swapped_in"]


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
