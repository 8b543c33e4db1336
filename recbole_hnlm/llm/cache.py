"""The store of valid replies, addressed by what was asked.

A reply is found again by the hash of the model's identity, the instruction, the data and the decoding: changing one item's text
asks for that item alone, and changing the model asks for everything. One SQLite file with a write-ahead log; each batch is one
transaction, so ``kill -9`` loses the batch in flight at most. SQLite does not notice a byte of a text that has changed, so each
row has a digest: a row that does not match it counts as absent, and its prompt is asked again.
"""

from __future__ import annotations

import hashlib
import logging
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

_FORMAT = 2  # 1 had no digests
_LOOK_UP = 500  # keys in one query; SQLite allows 999 variables at least
_BUSY_SECONDS = 60.0
_LOGGER = logging.getLogger("recbole_hnlm")


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


def _row_digest(key: bytes, reply: bytes) -> bytes:
    """Digest of a row: 32 hex digits over key (of fixed length) and reply."""
    return hashlib.sha256(key + reply).hexdigest()[:32].encode()


class ReplyCache:
    """Replies in a SQLite file; several processes may use it at once.

    A file of format 1 gets its digests when it is first opened for writing.

    Args:
        path: the file; it and its folder are made when absent.
        read_only: only look replies up; the file has to be there and nothing is written.

    Raises:
        ArtifactError: the file is not a reply cache, is damaged, or cannot be written.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        with self._reporting():
            if read_only:
                # Without a log next to it the file is complete, and "immutable" keeps SQLite from making one.
                log = self.path.with_name(f"{self.path.name}-wal").exists()
                address = f"{self.path.absolute().as_uri()}?mode=ro{'' if log else '&immutable=1'}"
                self._connection = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
                self._prepare(may_write=False)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            # With a write-ahead log, NORMAL keeps the file consistent at a power cut and keeps what kill -9 leaves.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._prepare(may_write=True)

    def _prepare(self, *, may_write: bool) -> None:
        """Check the format; make the table, or give one of format 1 its digests, where the file may be written."""
        # Damaged text need not be UTF-8: bytes are read, and decoded once their digest fits.
        self._open().text_factory = bytes
        if may_write and self._format() in {0, 1}:
            with self._transaction() as connection:
                if (found := self._format()) == 0:
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, digest TEXT NOT NULL) "
                        "WITHOUT ROWID"
                    )
                elif found == 1:
                    connection.create_function("row_digest", 2, lambda *row: _row_digest(*row).decode())
                    connection.execute("ALTER TABLE replies ADD COLUMN digest TEXT")
                    connection.execute("UPDATE replies SET digest = row_digest(CAST(key AS BLOB), CAST(reply AS BLOB))")
                connection.execute(f"PRAGMA user_version={_FORMAT}")
        found = self._format()
        if found != _FORMAT and (may_write or found != 1):
            raise ArtifactError(
                f"the reply cache {self.path} has format {found}, expected {_FORMAT}; delete the file to ask the LLM again"
            )
        # A file of format 1 that may not be written has none.
        self._has_digests = found == _FORMAT
        self._columns = f"key, CAST(reply AS BLOB), {'digest' if self._has_digests else 'NULL'}"
        self._open().execute(f"SELECT {self._columns} FROM replies LIMIT 1").fetchone()  # noqa: S608 -- constants only

    def _format(self) -> int:
        return int(self._open().execute("PRAGMA user_version").fetchone()[0])

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
        """Return the replies that are there, by key; damaged ones are left out, counted and logged.

        Raises:
            ArtifactError: the file cannot be read.
        """
        found: dict[str, str] = {}
        damaged = 0
        with self._reporting():
            for start in range(0, len(keys), _LOOK_UP):
                part = list(keys[start : start + _LOOK_UP])
                places = ",".join("?" * len(part))
                query = f"SELECT {self._columns} FROM replies WHERE key IN ({places})"  # noqa: S608 -- constants and marks only
                for key, reply, digest in self._open().execute(query, part):
                    try:
                        if reply is None or (self._has_digests and digest != _row_digest(key, reply)):
                            raise ValueError("damaged")
                        found[key.decode()] = reply.decode()
                    except ValueError:  # bytes that are no UTF-8, too
                        damaged += 1
        if damaged:
            _LOGGER.warning(
                "the reply cache %s: %d damaged replies are left out; their prompts are open again", self.path, damaged
            )
        return found

    def put_many(self, replies: Mapping[str, str]) -> None:
        """Store replies in one transaction: all of them or, on failure, none.

        Raises:
            ArtifactError: the file cannot be written, for instance because the disk is full.
        """
        if not replies:
            return
        rows = [(key, reply, _row_digest(key.encode(), reply.encode()).decode()) for key, reply in replies.items()]
        with self._reporting(), self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO replies (key, reply, digest) VALUES (?, ?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
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
    if "malformed" in text or "not a database" in text or "no such column" in text or "no such table" in text:
        return "the file is damaged or not a reply cache: delete it, and the LLM is asked for its replies again"
    if "locked" in text:
        return "another process holds it: wait for that run to end"
    return "check the folder's permissions, or set artifact_dir to another folder"
