"""One writer at a time in a folder of artefacts."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from recbole_hnlm.artifacts import disk_errors_reported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["exclusive_writer"]

_logger = logging.getLogger(__name__)


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
