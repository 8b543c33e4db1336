"""The vector store: what is written is found, and what is damaged or foreign is refused with the reason."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace

import numpy as np
import pytest

from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import MANIFEST_FORMAT, write_manifest

IDENTITY = StoreIdentity("pairs", "encoder", "1.0", "p" * 16, "d" * 16, "s" * 16, "i" * 32)
USERS, ITEMS = ["u1", "NA", "ü\u2028"], ["a", "b", "c", "d"]
KEYS = np.array([[2, 3], [0, 1], [1, 0], [0, 0]], dtype=np.int32)
VECTORS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


def build(folder, identity=IDENTITY, keys=KEYS, vectors=VECTORS, tables=(USERS, ITEMS)):
    with VectorStoreWriter(folder, identity, tables, vectors.shape[1]) as writer:
        writer.append(keys[:1], vectors[:1])
        writer.append(keys[1:], vectors[1:])
        writer.finish()
    return folder


@pytest.fixture
def folder(tmp_path):
    return build(tmp_path / "pairs")


def test_pairs_are_found_by_token_whatever_the_internal_ids(folder):
    store = VectorStore.open(folder, IDENTITY)
    assert isinstance(store.vectors, np.memmap)
    assert store.vectors.dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        store.vectors[0, 0] = 0
    user_tokens, item_tokens = np.array(["[PAD]", "ü\u2028", "u1", "NA", "new"]), np.array(["[PAD]", "d", "c", "b", "a"])
    users, items = np.array([1, 2, 2, 2, 3, 4, 1]), np.array([1, 3, 4, 3, 4, 4, 2])
    rows = store.rows_of_pairs(user_tokens, item_tokens, users, items)
    assert rows.tolist() == [0, 1, 3, 1, 2, -1, -1]
    assert store.vectors[rows[0]].tolist() == [1, 2, 3]


def test_lookup_agrees_with_a_dictionary_on_random_pairs(tmp_path):
    rng = np.random.default_rng(0)
    users, items = [f"u{n}" for n in range(40)], [f"i{n}" for n in range(50)]
    chosen = rng.permutation(40 * 50)[:700]
    keys = np.stack([chosen // 50, chosen % 50], axis=1).astype(np.int32)
    build(tmp_path / "pairs", keys=keys, vectors=rng.random((700, 2)) + 1, tables=(users, items))
    store = VectorStore.open(tmp_path / "pairs", IDENTITY)
    expected = {(f"u{user}", f"i{item}"): row for row, (user, item) in enumerate(keys)}
    user_tokens, item_tokens = rng.permutation([*users, "x"]), rng.permutation([*items, "y"])
    left, right = rng.integers(0, 41, 3000), rng.integers(0, 51, 3000)
    rows = store.rows_of_pairs(user_tokens, item_tokens, left, right)
    assert rows.tolist() == [expected.get((user_tokens[a], item_tokens[b]), -1) for a, b in zip(left, right, strict=True)]


def test_single_token_keys(tmp_path):
    identity = replace(IDENTITY, kind="item_texts")
    build(tmp_path / "x", identity, np.array([[3], [0]], dtype=np.int32), VECTORS[:2], (ITEMS,))
    assert VectorStore.open(tmp_path / "x", identity).rows_of_tokens(["a", "d", "zz"]).tolist() == [1, 0, -1]


def test_an_empty_store_opens_and_finds_nothing(tmp_path):
    build(tmp_path / "x", keys=KEYS[:0], vectors=VECTORS[:0])
    store = VectorStore.open(tmp_path / "x", IDENTITY)
    assert store.vectors.shape == (0, 3)
    assert store.rows_of_pairs(USERS, ITEMS, np.array([0]), np.array([0])).tolist() == [-1]


@pytest.mark.parametrize("field", [name for name in asdict(IDENTITY) if name != "kind"])
def test_each_field_of_the_identity_is_compared(folder, field):
    expected = replace(IDENTITY, **{field: "other"})
    assert not VectorStore.has(folder, expected)
    with pytest.raises(ArtifactError, match=rf"{field} is '.*', expected 'other'; delete .*recbole-hnlm encode"):
        VectorStore.open(folder, expected)


def test_kind_and_format_are_compared(folder):
    with pytest.raises(ArtifactError, match="kind is 'pairs', expected 'item_texts'"):
        VectorStore.open(folder, replace(IDENTITY, kind="item_texts"))
    edit_manifest(folder, format=99)
    assert not VectorStore.has(folder, IDENTITY)
    with pytest.raises(ArtifactError, match=f"format is 99, expected {MANIFEST_FORMAT}"):
        VectorStore.open(folder, IDENTITY)


def edit_manifest(folder, **changes):
    """Change entries as another writer would, with a digest that fits."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["manifest_sha256"]
    write_manifest(path, {**manifest, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": 3}, "shape of keys.npy"),
        ({"dim": 4}, "shape of vectors.npy"),
        ({"vectors_bytes": 1}, "bytes of vectors.npy"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder, changes, reason):
    edit_manifest(folder, **changes)
    with pytest.raises(ArtifactError, match=reason):
        VectorStore.open(folder, IDENTITY)


def test_broken_and_absent_manifests(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest\.json is corrupt"):
        VectorStore.open(folder, IDENTITY)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="expected a JSON object"):
        VectorStore.open(folder, IDENTITY)
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"no finished store.*recbole-hnlm encode"):
        VectorStore.open(folder, IDENTITY)


@pytest.mark.parametrize("name", ["keys.npy", "tokens_0.json", "tokens_1.json", "vectors.npy"])
@pytest.mark.parametrize("damage", ["truncated", "one byte", "gone"])
def test_damaged_files_are_refused(folder, name, damage):
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-2])
    else:
        content[-3] ^= 1
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        VectorStore.open(folder, IDENTITY)


def test_swapped_rows_are_detected(folder):
    path = folder / "vectors.npy"
    vectors = np.load(path)
    np.save(path, vectors[::-1])
    with pytest.raises(ArtifactError, match=r"SHA-256 of vectors\.npy"):
        VectorStore.open(folder, IDENTITY)


def test_a_pickled_array_is_never_loaded(folder):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "vectors.npy").write_bytes(buffer.getvalue())
    edit_manifest(folder, vectors_bytes=len(buffer.getvalue()))
    with pytest.raises(ArtifactError, match=r"vectors\.npy is corrupt"):
        VectorStore.open(folder, IDENTITY)


@pytest.mark.parametrize("bad", [[0, 0, 0], [np.nan, 1, 1], [np.inf, 1, 1], [1e6, 1, 1], [1e-9, 0, 0]])
def test_vectors_that_carry_nothing_in_float16_are_refused(tmp_path, bad):
    vectors = VECTORS.copy()
    vectors[2] = bad
    with pytest.raises(ArtifactError, match=r"1 vectors of 3 .*first for NA / a;"):
        build(tmp_path / "x", vectors=vectors)
    assert not (tmp_path / "x").exists()


def test_a_key_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="1 keys twice"):
        build(tmp_path / "x", keys=KEYS[[0, 1, 2, 1]])


def test_wrong_shapes_and_indices_are_programming_errors(tmp_path):
    with VectorStoreWriter(tmp_path / "x", IDENTITY, (USERS, ITEMS), 3) as writer:
        with pytest.raises(ValueError, match=r"expected \[n, 2\] and \[n, 3\]"):
            writer.append(KEYS, VECTORS[:, :2])
        with pytest.raises(ValueError, match="outside of its token table"):
            writer.append(KEYS + 2, VECTORS)


def test_an_interrupted_writer_goes_on_behind_its_mark(tmp_path):
    whole = build(tmp_path / "whole")
    with VectorStoreWriter(tmp_path / "x", IDENTITY, (USERS, ITEMS), 3) as writer:
        writer.append(KEYS[:2], VECTORS[:2])
    partial = tmp_path / "x.partial"
    with (partial / "vectors.npy").open("ab") as file:
        file.write(b"half a batch without a mark")
    with VectorStoreWriter(tmp_path / "x", IDENTITY, (USERS, ITEMS), 3) as writer:
        assert writer.count == 2
        writer.append(KEYS[2:], VECTORS[2:])
        writer.finish()
    for path in whole.iterdir():
        assert (tmp_path / "x" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not partial.exists()


def test_a_writer_for_something_else_starts_anew(tmp_path):
    with VectorStoreWriter(tmp_path / "x", IDENTITY, (USERS, ITEMS), 3) as writer:
        writer.append(KEYS[:2], VECTORS[:2])
    for identity, tables, dim in (
        (replace(IDENTITY, inputs="other"), (USERS, ITEMS), 3),
        (IDENTITY, (ITEMS, ITEMS), 3),
        (IDENTITY, (USERS, ITEMS), 4),
    ):
        with VectorStoreWriter(tmp_path / "x", identity, tables, dim) as writer:
            assert writer.count == 0


def test_a_new_store_replaces_the_old_one(folder):
    identity = replace(IDENTITY, inputs="new")
    build(folder, identity, vectors=VECTORS * 2)
    assert VectorStore.open(folder, identity).vectors[0].tolist() == [2, 4, 6]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_opening_a_store_takes_less_memory_than_a_tenth_of_it(tmp_path):
    script = f"""
    import sys, numpy as np, psutil
    from pathlib import Path
    from recbole_hnlm.data.store import StoreIdentity, VectorStore, VectorStoreWriter
    identity = StoreIdentity(*{list(asdict(IDENTITY).values())!r})
    folder = Path({str(tmp_path / "big")!r})
    users, items, dim = 1500, 300, 576
    tables = ([f"u{{n}}" for n in range(users)], [f"i{{n}}" for n in range(items)])
    grid = np.arange(users * 100)
    keys = np.stack([grid // 100, (grid * 3) % items], axis=1)
    if sys.argv[1] == "write":
        before = psutil.Process().memory_info().rss
        with VectorStoreWriter(folder, identity, tables, dim) as writer:
            for start in range(0, len(keys), 2000):
                writer.append(keys[start:start + 2000], np.random.default_rng(start).random((2000, dim), dtype=np.float32) + 1)
            writer.finish()
    else:
        before = psutil.Process().memory_info().rss
        store = VectorStore.open(folder, identity)
        tokens = [np.array(["[PAD]", *table]) for table in tables]
        rows = store.rows_of_pairs(*tokens, keys[:, 0] + 1, keys[:, 1] + 1)
        assert (rows == np.arange(len(keys))).all()
    print(psutil.Process().memory_info().rss - before)
    """
    grown = {}
    for mode in ("write", "read"):
        command = [sys.executable, "-c", textwrap.dedent(script), mode]
        grown[mode] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    size = (tmp_path / "big" / "vectors.npy").stat().st_size
    assert size > 100_000_000
    assert grown["read"] < 0.1 * size
    assert grown["write"] < 0.4 * size
