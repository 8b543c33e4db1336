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

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recbole_hnlm.data.store_format import REBUILD_STORE, StoreIdentity, StoreKind, integer_keys, sampled_digest
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import BROKEN_ARRAY, MANIFEST_FORMAT, file_digest, read_json, read_manifest, require_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["StoreIdentity", "StoreKind", "VectorStore", "VectorStoreWriter"]

_FULL_CHECK_BYTES = 256 << 20
_ENTRIES = {
    **{"dim": int, "count": int, "sha256": dict},
    **{"vectors_bytes": int, "vectors_sha256": str, "vectors_sampled_sha256": str},
}


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
        manifest = _manifest_of(folder)
        return all(manifest.get(name) == value for name, value in {"format": MANIFEST_FORMAT, **asdict(expected)}.items())

    @classmethod
    def open(cls, folder: Path, expected: StoreIdentity) -> VectorStore:
        """Open a store after checking it.

        Checked: every field of the identity, the format, sizes, the digests of keys and tables, and of the vectors the whole
        digest up to 256 MiB and beyond that the digest of 256 evenly spread rows (:meth:`verify` reads all).

        Raises:
            ArtifactError: what is wrong (field, found, expected) and how to build the store again.
        """
        manifest = _manifest_of(folder)
        for name, value in {"format": MANIFEST_FORMAT, **asdict(expected)}.items():
            _check(folder, name, manifest.get(name), value)
        remedy = REBUILD_STORE.format(folder=folder)
        require_entries(manifest, folder / "manifest.json", _ENTRIES, remedy)
        dim, count, digests = manifest["dim"], manifest["count"], manifest["sha256"]
        names = ["keys.npy", *(f"tokens_{column}.json" for column in range(expected.key_columns))]
        for name in names:
            _check(folder, f"SHA-256 of {name}", file_digest(folder / name, remedy), digests.get(name))
        tables = [[str(token) for token in read_json(folder / name)] for name in names[1:]]
        keys = _load(folder / "keys.npy", None)
        _check(folder, "shape of keys.npy", list(keys.shape), [count, expected.key_columns])
        vectors_path = folder / "vectors.npy"
        _check(folder, "bytes of vectors.npy", _size(vectors_path), manifest["vectors_bytes"])
        vectors = _load(vectors_path, "r" if count else None)
        _check(folder, "type of vectors.npy", str(vectors.dtype), "float16")
        _check(folder, "shape of vectors.npy", list(vectors.shape), [count, dim])
        store = cls(folder, vectors, keys, tables, manifest)
        if vectors.nbytes <= _FULL_CHECK_BYTES:
            store.verify()
        sampled = sampled_digest(vectors_path, count, dim * 2)
        _check(folder, "SHA-256 of sampled rows of vectors.npy", sampled, manifest["vectors_sampled_sha256"])
        return store

    def verify(self) -> None:
        """Read every vector and compare the digest with the manifest.

        Raises:
            ArtifactError: a byte differs, for instance because rows were swapped.
        """
        found = file_digest(self.folder / "vectors.npy")
        _check(self.folder, "SHA-256 of vectors.npy", found, self.manifest["vectors_sha256"])

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
        stored = integer_keys(self.keys, sizes)
        order = None if bool((stored[1:] > stored[:-1]).all()) else np.argsort(stored, kind="stable")
        if order is not None:
            stored = stored[order]
        sought = integer_keys(np.stack(wanted, axis=1), sizes)
        places = np.searchsorted(stored, sought)
        found = known & (places < len(stored))
        found[found] = stored[places[found]] == sought[found]
        rows[found] = places[found] if order is None else order[places[found]]
        return rows


def _manifest_of(folder: Path) -> dict[str, Any]:
    """Read a store's manifest.

    Raises:
        ArtifactError: it is absent (the store was not finished) or damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise ArtifactError(f"there is no finished store in {folder}; run `recbole-hnlm encode` to build it")
    return read_manifest(path, REBUILD_STORE.format(folder=folder))


def _check(folder: Path, field: str, found: object, expected: object) -> None:
    if found != expected:
        raise ArtifactError(
            f"{folder}: {field} is {repr(found)[:80]}, expected {repr(expected)[:80]}; {REBUILD_STORE.format(folder=folder)}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _load(path: Path, mmap_mode: Literal["r"] | None) -> NDArray[Any]:
    """Load an array without ever unpickling."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise ArtifactError(f"{path} is corrupt ({error}); {REBUILD_STORE.format(folder=path.parent)}") from error
    return array
