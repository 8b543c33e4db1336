"""Writing a vector store in chunks; :mod:`recbole_hnlm.data.store` describes the files."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from recbole_hnlm.data.store_format import REBUILD_STORE, integer_keys, sampled_digest
from recbole_hnlm.data.store_progress import PROGRESS_NAME, Progress, RowFile
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import disk_errors_reported, file_digest, write_json, write_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from recbole_hnlm.data.store_format import StoreIdentity

__all__ = ["VectorStoreWriter", "remove_store"]

_logger = logging.getLogger(__name__)


class VectorStoreWriter:
    """Writes a store in chunks, into ``<folder>.partial``; memory does not grow with the number of vectors.

    The digest of each chunk is noted once it is on disk. A writer for the same identity and tables that finds such a folder
    compares every chunk with its digest and continues behind the last one before the first that differs (:attr:`count`), with a
    warning where chunks are lost; anything else in its place is deleted. Use as a context manager, then :meth:`finish`.

    Args:
        folder: where the finished store goes.
        identity: what the vectors are.
        tables: raw tokens of each key column.
        dim: dimension H.

    Raises:
        ArtifactError: the folder cannot be written.
    """

    def __init__(self, folder: Path, identity: StoreIdentity, tables: Sequence[Sequence[str]], dim: int) -> None:
        if len(tables) != identity.key_columns:
            raise ValueError(f"{len(tables)} token tables for {identity.key_columns} key columns of kind {identity.kind}")
        self.folder, self.identity, self.dim = folder, identity, dim
        self.partial = folder.with_name(folder.name + ".partial")
        self._tables = [list(table) for table in tables]
        self.count = 0
        self._files: list[IO[bytes]] = []
        described = {"identity": asdict(identity), "dim": dim, "tables": self._tables_digest()}
        self._progress = Progress(self.partial, described, self._row_files())

    def __enter__(self) -> VectorStoreWriter:
        with disk_errors_reported(self.partial):
            self._progress.verify()
            self.count = self._progress.rows
            self._report_damage()
            if not self.count:
                remove_store(self.partial)
                self.partial.mkdir(parents=True)
            for file, (dtype, width) in zip(self._row_files(), self._layouts, strict=True):
                self._files.append(self._open_behind(file, _npy_header(dtype, 0, width)))
            self._progress.open()
        return self

    def _report_damage(self) -> None:
        if self._progress.damage is None:
            return
        file = self._row_files()[0]
        found = max(0, file.size() - file.header_bytes) // file.row_bytes if file.row_bytes else 0
        _logger.warning(
            "the unfinished store %s is damaged (%s): %s rows of it are whole and kept, %s are computed again",
            self.partial,
            self._progress.damage,
            f"{self.count:,}",
            f"{max(0, found - self.count):,}",
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, keeping what is there for a later writer."""
        for file in self._files:
            file.close()
        self._files = []
        self._progress.close()

    @property
    def _layouts(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Element type and row width of the vectors and of the keys."""
        return ("<f2", self.dim), ("<i4", self.identity.key_columns)

    def _row_files(self) -> list[RowFile]:
        return [
            RowFile(path, len(_npy_header(dtype, 0, width)), width * int(dtype[-1]))
            for path, (dtype, width) in zip((self.vectors_path, self.keys_path), self._layouts, strict=True)
        ]

    @property
    def vectors_path(self) -> Path:
        """The vectors while they are written."""
        return self.partial / "vectors.npy"

    @property
    def keys_path(self) -> Path:
        """The keys while they are written."""
        return self.partial / "keys.npy"

    def append(self, keys: NDArray[np.integer[Any]], vectors: NDArray[np.floating[Any]]) -> None:
        """Write a chunk, then note its digest.

        Args:
            keys: ``[n, K]`` indices into the token tables.
            vectors: ``[n, H]``, finite and non-zero, in float16's range.

        Raises:
            ArtifactError: a vector is not finite or zero in float16, or the disk does not take it.
            ValueError: a shape or an index is wrong.
        """
        if vectors.shape != (len(keys), self.dim) or keys.shape[1:] != (self.identity.key_columns,):
            raise ValueError(
                f"keys {keys.shape} and vectors {vectors.shape}, expected [n, {self.identity.key_columns}] and [n, {self.dim}]"
            )
        sizes = np.array([len(table) for table in self._tables])
        if len(keys) and ((keys < 0).any() or (keys >= sizes).any()):
            raise ValueError(f"a key is outside of its token table (sizes {sizes.tolist()})")
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(vectors, dtype="<f2")
        refused = ~np.isfinite(halves).all(axis=1) | ~halves.any(axis=1)
        if refused.any():
            first = [table[index] for table, index in zip(self._tables, keys[int(np.argmax(refused))], strict=True)]
            raise ArtifactError(
                f"{self.identity.model} gave {int(refused.sum())} vectors of {len(keys)} that are zero, infinite or not a "
                f"number in float16, first for {' / '.join(first)}; choose another text_encoder or check its weights"
            )
        with disk_errors_reported(self.partial):
            blocks = [halves.tobytes(), np.ascontiguousarray(keys, dtype="<i4").tobytes()]
            for file, block in zip(self._files, blocks, strict=True):
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            self._progress.add(blocks, len(keys))
            self.count = self._progress.rows

    def finish(self) -> None:
        """Complete the files, write the manifest and put the store in place of an older one.

        Raises:
            ArtifactError: a key occurs twice, or the disk does not take it.
        """
        with disk_errors_reported(self.partial):
            for file, (dtype, width) in zip(self._files, self._layouts, strict=True):
                file.seek(0)
                file.write(_npy_header(dtype, self.count, width))
                file.flush()
                os.fsync(file.fileno())
            self.close()
            keys = np.load(self.keys_path, mmap_mode="r", allow_pickle=False)
            _refuse_duplicates(integer_keys(keys, [len(table) for table in self._tables]), self.partial)
            del keys
            for column, table in enumerate(self._tables):
                write_json(self.partial / f"tokens_{column}.json", table)
            write_manifest(self.partial / "manifest.json", self._manifest())
            retired = self.folder.with_name(self.folder.name + ".old")
            remove_store(retired)
            if self.folder.exists():
                self.folder.rename(retired)
            self.partial.rename(self.folder)
            # Only now, so that a process that is killed before finds its rows again.
            (self.folder / PROGRESS_NAME).unlink()
            remove_store(retired)

    def _manifest(self) -> dict[str, Any]:
        names = ["keys.npy", *(f"tokens_{column}.json" for column in range(len(self._tables)))]
        return {
            **asdict(self.identity),
            "dim": self.dim,
            "count": self.count,
            "sha256": {name: file_digest(self.partial / name) for name in names},
            "vectors_bytes": self.vectors_path.stat().st_size,
            "vectors_sha256": file_digest(self.vectors_path),
            "vectors_sampled_sha256": sampled_digest(self.vectors_path, self.count, self.dim * 2),
        }

    def _tables_digest(self) -> str:
        digest = hashlib.sha256()
        for table in self._tables:
            digest.update(repr(table).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _open_behind(self, file: RowFile, header: bytes) -> IO[bytes]:
        """Open a file for writing behind the rows that are kept; the header's final shape comes with :meth:`finish`."""
        if not self.count:
            stream: IO[bytes] = file.path.open("wb")
            stream.write(header)
            return stream
        stream = file.path.open("r+b")
        stream.truncate(file.end_of(self.count))
        stream.seek(0, os.SEEK_END)
        return stream


def _npy_header(dtype: str, rows: int, width: int) -> bytes:
    """Header of a ``.npy`` file; NumPy pads it so that its length does not depend on the number of rows."""
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(  # type: ignore[no-untyped-call]
        buffer, {"descr": dtype, "fortran_order": False, "shape": (rows, width)}
    )
    return buffer.getvalue()


def remove_store(folder: Path) -> None:
    """Delete a store's folder, which holds files only."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _refuse_duplicates(folded: NDArray[np.int64], folder: Path) -> None:
    ordered = np.sort(folded)
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    if repeated:
        raise ArtifactError(f"{folder} holds {repeated} keys twice; {REBUILD_STORE.format(folder=folder)}")
