"""Where the trials of a search are kept: a journal file in its folder, or any storage of Optuna's.

The journal is Optuna's own format, so that Optuna's tools open it. A process that is killed while it appends leaves a line
without an end, onto which the next record would be glued for ever; here every append cuts such a line off, under the lock.
"""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import ArtifactError, BackendError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import BaseStorage

__all__ = ["JOURNAL", "RepairingJournal", "cut_torn_line", "open_storage"]

JOURNAL = "journal.log"
# After this a lock whose holder was killed is taken away; no append takes a tenth of it.
_GRACE_SECONDS = 10
_BLOCK_BYTES = 1 << 16
_GRPC = "grpc://"


def cut_torn_line(path: Path) -> int:
    """Cut what stands behind the last complete line of a file; returns the number of bytes cut.

    Only for the holder of the journal's lock: another process may be writing that line.
    """
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        kept = end
        while kept > 0:
            start = max(0, kept - _BLOCK_BYTES)
            file.seek(start)
            place = file.read(kept - start).rfind(b"\n")
            if place >= 0:
                kept = start + place + 1
                break
            kept = start
        if kept < end:
            file.truncate(kept)
            os.fsync(file.fileno())
    return end - kept


class RepairingJournal(JournalFileBackend):
    """Optuna's journal file, which cuts a torn last line before it appends.

    Args:
        path: the journal; made when absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # A symbolic link, the lock of Optuna's own tools, needs a privilege on Windows.
        lock_class = JournalFileOpenLock if os.name == "nt" else JournalFileSymlinkLock
        self._own_lock = lock_class(str(path), grace_period=_GRACE_SECONDS)
        super().__init__(str(path), lock_obj=self._own_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records under the lock, behind the last complete line."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode("utf-8")
        self._own_lock.acquire()
        try:
            cut_torn_line(self._path)
            with self._path.open("ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._own_lock.release()


def open_storage(url: str | None, folder: Path, workers: int = 1) -> BaseStorage:
    """Open the storage of a search.

    Args:
        url: None for ``journal.log`` in the folder; ``grpc://HOST:PORT`` for Optuna's proxy; any other URL of Optuna's, such as
            ``postgresql+psycopg://USER@HOST/DATABASE``.
        folder: the search's folder.
        workers: processes that will use it on this machine.

    Raises:
        ConfigError: no URL, one that names no kind of database, or SQLite for several processes.
        MissingDependencyError: the database's driver is not installed.
        BackendError: the database does not answer.
        ArtifactError: the journal is damaged or cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        return _open_journal(folder / JOURNAL)
    if "://" not in url:
        raise ConfigError(
            f"storage: expected a URL such as postgresql+psycopg://USER@HOST/DATABASE, got {url!r}; without --storage the "
            "journal in --out is used"
        )
    if url.startswith("sqlite") and workers > 1:
        raise ConfigError("storage: SQLite loses writes of several processes: leave --storage out, use PostgreSQL, or --jobs=1")
    try:
        return _open_proxy(url) if url.startswith(_GRPC) else RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise MissingDependencyError(
            f"storage {redact(url)}: its driver is not installed ({error.name or error}): pip install 'recbole-hnlm[storage]', "
            "which has those of postgresql+psycopg:// and grpc://"
        ) from error
    except ArgumentError as error:
        raise ConfigError(f"storage: {redact(url)} is no URL of a database: {_reason(error)}") from error
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError) as error:
        raise BackendError(f"storage {redact(url)} does not answer: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return redact(" ".join(str(error).split())[:300])


def _open_proxy(url: str) -> BaseStorage:
    from optuna.storages import GrpcStorageProxy  # noqa: PLC0415 -- needs grpcio, which is optional

    host, _, port = url.removeprefix(_GRPC).rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"storage: expected grpc://HOST:PORT, got {redact(url)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=10)
    return proxy


def _open_journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(RepairingJournal(path))
    except OSError as error:
        raise ArtifactError(f"cannot use the journal {path}: {error.strerror or error}; choose another --out") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        # One whose last line is torn is read as if that line were not there.
        raise ArtifactError(
            f"the journal {path} is damaged ({' '.join(str(error).split())[:120]}): move it away to begin again, or restore "
            "it from a copy"
        ) from error
