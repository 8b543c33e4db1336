"""What an unfinished vector store says about itself: one line for each block of rows, appended once the block is on disk.

``progress.jsonl`` begins with a line that says which store it is of. Each further line is of one block: its first row, its
number of rows and the SHA-256 of its bytes in every file, so that a writer that continues knows which rows are as written.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["PROGRESS_NAME", "Progress", "RowFile"]

PROGRESS_NAME = "progress.jsonl"
_READ_BYTES = 1 << 20
# A line of ours has about 250 bytes, the first one at most some kilobytes.
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class RowFile:
    """A file of rows of one size behind a header.

    Attributes:
        path: the file.
        header_bytes: bytes before the first row.
        row_bytes: bytes of a row.
    """

    path: Path
    header_bytes: int
    row_bytes: int

    def end_of(self, rows: int) -> int:
        """Position behind the given number of rows."""
        return self.header_bytes + rows * self.row_bytes

    def size(self) -> int:
        """Bytes of the file; 0 where it is absent."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def digest(self, start: int, rows: int) -> str:
        """SHA-256 in hex of a block of rows, read in pieces."""
        digest, left = hashlib.sha256(), rows * self.row_bytes
        with self.path.open("rb") as file:
            file.seek(self.end_of(start))
            while left and (piece := file.read(min(left, _READ_BYTES))):
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest()


class Progress:
    """The list of an unfinished store's blocks.

    Args:
        folder: of the unfinished store.
        store: what the store is; a list of another one is not continued.
        files: its files of rows, in the order of the digests.

    Attributes:
        rows: rows of the blocks that are known to be as they were written.
        damage: why rows that were written once are not among them, in words; None where all are.
    """

    def __init__(self, folder: Path, store: Mapping[str, Any], files: Sequence[RowFile]) -> None:
        self._path = folder / PROGRESS_NAME
        self._store = json.loads(json.dumps(store))
        self._files = list(files)
        self._good_bytes = 0
        self._stream: IO[bytes] | None = None
        self.rows = 0
        self.damage: str | None = None

    def verify(self) -> None:
        """Read the list and compare each block with its digests, up to the first that is damaged.

        Raises:
            OSError: a file cannot be read.
        """
        self.rows, self._good_bytes, self.damage = 0, 0, None
        if not self._path.is_file():
            return
        with self._path.open("rb") as lines:
            first = lines.readline(_LONGEST_LINE)
            head = _parsed(first)
            if head is None:
                self.damage = f"line 1 of {PROGRESS_NAME} is damaged"
                return
            if head != self._store:
                return
            self._good_bytes = len(first)
            sizes = [file.size() for file in self._files]
            number = 1
            while line := lines.readline(_LONGEST_LINE):
                number += 1
                if (reason := self._wrong(_parsed(line), sizes)) is not None:
                    # A last line without its end is what a kill leaves, and its block has to be made again all the same.
                    self.damage = f"line {number} of {PROGRESS_NAME} {reason}"
                    return
                self._good_bytes += len(line)

    def _wrong(self, block: dict[str, Any] | None, sizes: Sequence[int]) -> str | None:
        """Return what is wrong with the next block, or None and count its rows."""
        if block is None or block.keys() != {"start", "rows", "sha256"}:
            return "is damaged"
        start, rows, digests = block["start"], block["rows"], block["sha256"]
        if type(start) is not int or type(rows) is not int or not isinstance(digests, list) or len(digests) != len(self._files):
            return "is damaged"
        if start != self.rows or rows < 1:
            return f"does not continue behind row {self.rows:,}"
        for file, size, expected in zip(self._files, sizes, digests, strict=True):
            if file.end_of(start + rows) > size:
                return f"names rows that {file.path.name} does not have"
            if file.digest(start, rows) != expected:
                return f"has another SHA-256 than its rows in {file.path.name}"
        self.rows += rows
        return None

    def open(self) -> None:
        """Begin a list, or continue behind the last block that :meth:`verify` found whole.

        Raises:
            OSError: the file cannot be written.
        """
        self._stream = self._path.open("r+b" if self.rows else "wb")
        if self.rows:
            self._stream.truncate(self._good_bytes)
            self._stream.seek(0, os.SEEK_END)
        else:
            self._write(self._store)

    def add(self, blocks: Sequence[bytes], rows: int) -> None:
        """Note a block that has been written and flushed to the disk.

        Args:
            blocks: its bytes in each file.
            rows: its number of rows; 0 is not noted.

        Raises:
            OSError: the file cannot be written.
        """
        if rows:
            self._write({"start": self.rows, "rows": rows, "sha256": [hashlib.sha256(block).hexdigest() for block in blocks]})
            self.rows += rows

    def _write(self, content: Mapping[str, Any]) -> None:
        if self._stream is None:
            raise ValueError("the list of blocks is closed")
        self._stream.write(json.dumps(content).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file, keeping what is there for a later writer."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the content of a whole line, or None for one that is cut or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
