"""The vector store: a folder with float16 vectors, read as a memory map, found by raw tokens.

Files of a store with N vectors of dimension H and K key columns (pairs: user and item, K = 2; else K = 1):

- ``vectors.npy``: float16 ``[N, H]``;
- ``keys.npy``: int32 ``[N, K]``, for each vector the index of its tokens in the token tables;
- ``tokens_0.json`` ... : the tables, one JSON list of raw tokens for each key column;
- ``manifest.json``: what the vectors are, their count and digests; written last.

Rows may come in any order and from several writers (shards are merged by appending one to the other); a key occurs once.
Raw tokens, never internal ids: RecBole renumbers users and items when a filter changes.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.lib import format as npy_format

from recbole_hnlm.artifacts import disk_errors_reported, file_digest, read_json, write_json
from recbole_hnlm.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["STORE_FORMAT", "StoreIdentity", "StoreKind", "VectorStore", "VectorStoreWriter", "read_manifest"]

STORE_FORMAT = 1
StoreKind = Literal["pairs", "item_texts", "item_profiles", "user_profiles"]

_SAMPLED_ROWS = 256
_FULL_CHECK_BYTES = 256 << 20
_REBUILD = "delete {folder} and run `recbole-hnlm encode` with the same keys"


@dataclass(frozen=True)
class StoreIdentity:
    """What the vectors of a store are; opening compares every field.

    Attributes:
        kind: what a key is and which text was encoded.
        model: name of the model that made the vectors.
        revision: its version or content digest.
        prompt_hash: digest of the prompts (or of the text's form) behind the vectors.
        dataset_fingerprint: :attr:`TrainingInteractions.dataset_fingerprint`.
        split_fingerprint: :attr:`TrainingInteractions.split_fingerprint`.
        inputs: digest over every key and text, in order.
    """

    kind: StoreKind
    model: str
    revision: str
    prompt_hash: str
    dataset_fingerprint: str
    split_fingerprint: str
    inputs: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(StoreKind):
            raise ValueError(f"kind is {self.kind!r}, expected one of {', '.join(get_args(StoreKind))}")

    @property
    def key_columns(self) -> int:
        """Number K of tokens in a key."""
        return 2 if self.kind == "pairs" else 1


def _sampled_digest(path: Path, count: int, row_bytes: int) -> str:
    """SHA-256 over at most 256 evenly spread rows of ``vectors.npy``; reads, does not map."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        offset = path.stat().st_size - count * row_bytes
        for row in np.unique(np.linspace(0, max(count - 1, 0), min(count, _SAMPLED_ROWS)).astype(np.int64)):
            file.seek(offset + int(row) * row_bytes)
            digest.update(file.read(row_bytes))
    return digest.hexdigest()


class VectorStoreWriter:
    """Writes a store in chunks, into ``<folder>.partial``; memory does not grow with the number of vectors.

    A progress mark follows each chunk. A writer for the same identity and tables that finds such a folder continues behind the
    last mark (:attr:`count`); anything else in its place is deleted. Use as a context manager, then :meth:`finish`.

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

    def __enter__(self) -> VectorStoreWriter:
        with disk_errors_reported(self.partial):
            self.count = self._marked_count()
            if not self.count:
                _remove(self.partial)
                self.partial.mkdir(parents=True)
                for column, table in enumerate(self._tables):
                    write_json(self.partial / f"tokens_{column}.json", table)
            for path, (dtype, width) in zip((self.vectors_path, self.keys_path), self._layouts, strict=True):
                self._files.append(self._open_at_mark(path, _npy_header(dtype, 0, width), width * int(dtype[-1])))
            if not self.count:
                self._mark()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, keeping what is there for a later writer."""
        for file in self._files:
            file.close()
        self._files = []

    @property
    def _layouts(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Element type and row width of the vectors and of the keys."""
        return ("<f2", self.dim), ("<i4", self.identity.key_columns)

    @property
    def vectors_path(self) -> Path:
        """The vectors while they are written."""
        return self.partial / "vectors.npy"

    @property
    def keys_path(self) -> Path:
        """The keys while they are written."""
        return self.partial / "keys.npy"

    def append(self, keys: NDArray[np.integer[Any]], vectors: NDArray[np.floating[Any]]) -> None:
        """Write a chunk and mark the progress.

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
            vectors_file, keys_file = self._files
            vectors_file.write(halves.tobytes())
            keys_file.write(np.ascontiguousarray(keys, dtype="<i4").tobytes())
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())
            self.count += len(keys)
            self._mark()

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
            _refuse_duplicates(_integer_keys(keys, [len(table) for table in self._tables]), self.partial)
            del keys
            write_json(self.partial / "manifest.json", self._manifest())
            (self.partial / "progress.json").unlink()
            retired = self.folder.with_name(self.folder.name + ".old")
            _remove(retired)
            if self.folder.exists():
                self.folder.rename(retired)
            self.partial.rename(self.folder)
            _remove(retired)

    def _manifest(self) -> dict[str, Any]:
        names = ["keys.npy", *(f"tokens_{column}.json" for column in range(len(self._tables)))]
        return {
            "format": STORE_FORMAT,
            **asdict(self.identity),
            "dim": self.dim,
            "count": self.count,
            "sha256": {name: file_digest(self.partial / name) for name in names},
            "vectors_bytes": self.vectors_path.stat().st_size,
            "vectors_sha256": file_digest(self.vectors_path),
            "vectors_sampled_sha256": _sampled_digest(self.vectors_path, self.count, self.dim * 2),
        }

    def _mark(self) -> None:
        progress = {"identity": asdict(self.identity), "dim": self.dim, "tables": self._tables_digest(), "count": self.count}
        write_json(self.partial / "progress.json", progress)

    def _tables_digest(self) -> str:
        digest = hashlib.sha256()
        for table in self._tables:
            digest.update(repr(table).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _marked_count(self) -> int:
        """Rows that an interrupted writer of the same store marked as written; 0 if there is none."""
        mark = self.partial / "progress.json"
        if not mark.exists():
            return 0
        progress = read_json(mark)
        own = {"identity": asdict(self.identity), "dim": self.dim, "tables": self._tables_digest()}
        return int(progress["count"]) if {name: progress.get(name) for name in own} == own else 0

    def _open_at_mark(self, path: Path, header: bytes, row_bytes: int) -> IO[bytes]:
        """Open a file for writing behind the marked rows; the header's final shape comes with :meth:`finish`."""
        if not self.count:
            file: IO[bytes] = path.open("wb")
            file.write(header)
            return file
        file = path.open("r+b")
        file.truncate(len(header) + self.count * row_bytes)
        file.seek(0, os.SEEK_END)
        return file


def _npy_header(dtype: str, rows: int, width: int) -> bytes:
    """Header of a ``.npy`` file; NumPy pads it so that its length does not depend on the number of rows."""
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(  # type: ignore[no-untyped-call]
        buffer, {"descr": dtype, "fortran_order": False, "shape": (rows, width)}
    )
    return buffer.getvalue()


def _remove(folder: Path) -> None:
    """Delete a store's folder, which holds files only."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _integer_keys(keys: NDArray[np.integer[Any]], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Fold the key columns into one int64 per row, unique for each combination: ``[N, K] -> [N]``."""
    folded = np.zeros(len(keys), dtype=np.int64)
    for column, size in enumerate(sizes):
        folded = folded * np.int64(size) + keys[:, column]
    return folded


def _refuse_duplicates(folded: NDArray[np.int64], folder: Path) -> None:
    ordered = np.sort(folded)
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    if repeated:
        raise ArtifactError(f"{folder} holds {repeated} keys twice; {_REBUILD.format(folder=folder)}")


class VectorStore:
    """A finished store, opened for reading. Make one with :meth:`open`.

    Attributes:
        vectors: float16 ``[N, H]``, a read-only memory map.
        keys: int32 ``[N, K]``, indices into ``tables``.
        tables: raw tokens of each key column.
        manifest: content of ``manifest.json``.
    """

    def __init__(
        self,
        folder: Path,
        vectors: NDArray[np.float16],
        keys: NDArray[np.int32],
        tables: list[list[str]],
        manifest: dict[str, Any],
    ) -> None:
        self.folder, self.vectors, self.keys, self.tables, self.manifest = folder, vectors, keys, tables, manifest

    def __len__(self) -> int:
        return len(self.vectors)

    @staticmethod
    def has(folder: Path, expected: StoreIdentity) -> bool:
        """Whether a finished store with exactly this identity is there; its content is for :meth:`open` to check.

        Raises:
            ArtifactError: there is a manifest that cannot be read.
        """
        if not (folder / "manifest.json").exists():
            return False
        manifest = read_manifest(folder)
        return all(manifest.get(name) == value for name, value in {"format": STORE_FORMAT, **asdict(expected)}.items())

    @classmethod
    def open(cls, folder: Path, expected: StoreIdentity) -> VectorStore:
        """Open a store after checking it.

        Checked: every field of the identity, the format, sizes, the digests of keys and tables, and of the vectors the whole
        digest up to 256 MiB and beyond that the digest of 256 evenly spread rows (:meth:`verify` reads all).

        Raises:
            ArtifactError: what is wrong (field, found, expected) and how to build the store again.
        """
        manifest = read_manifest(folder)
        for name, value in {"format": STORE_FORMAT, **asdict(expected)}.items():
            _check(folder, name, manifest.get(name), value)
        try:
            dim, count = int(manifest["dim"]), int(manifest["count"])
            digests = dict(manifest["sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{folder / 'manifest.json'} is corrupt ({error!r}); {_REBUILD.format(folder=folder)}"
            ) from error
        names = ["keys.npy", *(f"tokens_{column}.json" for column in range(expected.key_columns))]
        for name in names:
            _check(folder, f"SHA-256 of {name}", file_digest(folder / name), digests.get(name))
        tables = [[str(token) for token in read_json(folder / name)] for name in names[1:]]
        keys = _load(folder / "keys.npy", None)
        _check(folder, "shape of keys.npy", list(keys.shape), [count, expected.key_columns])
        vectors_path = folder / "vectors.npy"
        _check(folder, "bytes of vectors.npy", _size(vectors_path), manifest.get("vectors_bytes"))
        vectors = _load(vectors_path, "r" if count else None)
        _check(folder, "type of vectors.npy", str(vectors.dtype), "float16")
        _check(folder, "shape of vectors.npy", list(vectors.shape), [count, dim])
        store = cls(folder, vectors, keys, tables, manifest)
        if vectors.nbytes <= _FULL_CHECK_BYTES:
            store.verify()
        sampled = _sampled_digest(vectors_path, count, dim * 2)
        _check(folder, "SHA-256 of sampled rows of vectors.npy", sampled, manifest.get("vectors_sampled_sha256"))
        return store

    def verify(self) -> None:
        """Read every vector and compare the digest with the manifest.

        Raises:
            ArtifactError: a byte differs, for instance because rows were swapped.
        """
        found = file_digest(self.folder / "vectors.npy")
        _check(self.folder, "SHA-256 of vectors.npy", found, self.manifest.get("vectors_sha256"))

    def rows_of_tokens(self, tokens: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """Rows of single-token keys: int64 ``[len(tokens)]``, -1 where there is no vector."""
        return self._rows([self._table_positions(0, tokens)])

    def rows_of_pairs(
        self,
        user_tokens: Sequence[str] | NDArray[np.str_],
        item_tokens: Sequence[str] | NDArray[np.str_],
        users: NDArray[np.integer[Any]],
        items: NDArray[np.integer[Any]],
    ) -> NDArray[np.int64]:
        """Rows of (user, item) pairs that are given by internal id.

        Args:
            user_tokens: raw token by internal user id, ``[U]``.
            item_tokens: raw token by internal item id, ``[I]``.
            users: internal user id of each pair, ``[P]``.
            items: internal item id of each pair, ``[P]``.

        Returns:
            int64 ``[P]``; -1 where the pair has no vector. Equal pairs get the same row.
        """
        return self._rows([self._table_positions(0, user_tokens)[users], self._table_positions(1, item_tokens)[items]])

    def _table_positions(self, column: int, tokens: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """Position of each token in a table, -1 where it is absent."""
        positions = {token: position for position, token in enumerate(self.tables[column])}
        return np.fromiter((positions.get(str(token), -1) for token in tokens), dtype=np.int64, count=len(tokens))

    def _rows(self, wanted: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Look keys up by binary search; ``wanted`` has K arrays ``[P]`` of table positions."""
        known = np.logical_and.reduce([column >= 0 for column in wanted])
        rows = np.full(len(known), -1, dtype=np.int64)
        sizes = [len(table) for table in self.tables]
        stored = _integer_keys(self.keys, sizes)
        order = None if bool((stored[1:] > stored[:-1]).all()) else np.argsort(stored, kind="stable")
        if order is not None:
            stored = stored[order]
        sought = _integer_keys(np.stack(wanted, axis=1), sizes)
        places = np.searchsorted(stored, sought)
        found = known & (places < len(stored))
        found[found] = stored[places[found]] == sought[found]
        rows[found] = places[found] if order is None else order[places[found]]
        return rows


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a store's manifest.

    Raises:
        ArtifactError: it is absent (the store was not finished) or not a JSON object.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise ArtifactError(f"there is no finished store in {folder}; run `recbole-hnlm encode` to build it")
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path} is corrupt (expected a JSON object); {_REBUILD.format(folder=folder)}")
    return manifest


def _check(folder: Path, field: str, found: object, expected: object) -> None:
    if found != expected:
        raise ArtifactError(f"{folder}: {field} is {found!r}, expected {expected!r}; {_REBUILD.format(folder=folder)}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _load(path: Path, mmap_mode: Literal["r"] | None) -> NDArray[Any]:
    """Load an array without ever unpickling."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); {_REBUILD.format(folder=path.parent)}") from error
    return array
