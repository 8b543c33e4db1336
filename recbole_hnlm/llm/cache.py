"""The store of valid replies, addressed by what was asked.

A reply is found again by the hash of the model's identity, the instruction, the data and the decoding: changing one item's text
asks for that item alone, and changing the model asks for everything. One SQLite file with a write-ahead log; each batch is one
transaction, so ``kill -9`` loses the batch in flight at most.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from recbole_hnlm.llm.protocol import Decoding, ModelIdentity, Prompt

__all__ = ["ReplyCache", "content_key"]

_FORMAT = 1
_LOOK_UP = 500  # keys in one query; SQLite allows 999 variables at least
_BUSY_SECONDS = 60.0


def content_key(identity: ModelIdentity, prompt: Prompt, decoding: Decoding) -> str:
    """Return the address of a reply: 64 hex digits, separating all parts."""
    digest = hashlib.sha256()
    for part in (
        identity.key(),
        prompt.system,
        prompt.user,
        decoding.key(),
        *prompt.example_texts,
    ):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


class ReplyCache:
    """Replies in a SQLite file; several processes may use it at once.

    Args:
        path: the file; it and its folder are made when absent.
        read_only: only look replies up; the file has to be there and nothing is written.

    Raises:
        ArtifactError: the file is no reply cache, is damaged, or cannot be written.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        with self._reporting():
            if read_only:
                # Without a log beside it the file is complete, and "immutable" keeps SQLite from making one.
                log = self.path.with_name(f"{self.path.name}-wal").exists()
                address = f"{self.path.absolute().as_uri()}?mode=ro{'' if log else '&immutable=1'}"
                self._connection = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
                self._check_format()
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            # With a write-ahead log, NORMAL keeps the file consistent at a power cut and keeps what kill -9 leaves.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID"
            )
            self._check_format()

    def _check_format(self) -> None:
        found = self._open().execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._open().execute(f"PRAGMA user_version={_FORMAT}")
        elif found != _FORMAT:
            raise ArtifactError(
                f"the reply cache {self.path} has format {found}, expected {_FORMAT}; delete the file to ask again"
            )
        self._open().execute("SELECT key, reply FROM replies LIMIT 1").fetchone()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ArtifactError(f"the reply cache {self.path} is closed")
        return self._connection

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ArtifactError(f"the reply cache {self.path} cannot be used ({error}); {_remedy(error)}") from error

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the replies that are there, by key.

        Raises:
            ArtifactError: the file cannot be read.
        """
        found: dict[str, str] = {}
        with self._reporting():
            for start in range(0, len(keys), _LOOK_UP):
                part = list(keys[start : start + _LOOK_UP])
                places = ",".join("?" * len(part))
                query = f"SELECT key, reply FROM replies WHERE key IN ({places})"  # noqa: S608 -- question marks only
                found.update(self._open().execute(query, part))
        return found

    def put_many(self, replies: Mapping[str, str]) -> None:
        """Store replies in one transaction: all of them or, on failure, none.

        Raises:
            ArtifactError: the file cannot be written, for instance because the disk is full.
        """
        if not replies:
            return
        with self._reporting():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", replies.items())
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def __len__(self) -> int:
        with self._reporting():
            return int(self._open().execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    if "full" in text or "disk i/o" in text or "no space" in text:
        return "make room on its disk and run again: what was stored is kept"
    if "malformed" in text or "not a database" in text or "no such column" in text:
        return "the file is damaged or no reply cache: delete it, and its replies are asked again"
    if "locked" in text:
        return "another process holds it: wait for that run to end"
    return "check the folder's permissions, or set artifact_dir to another folder"
