"""An unfinished vector store: what is whole is kept, what is damaged is computed again, and no count is believed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_progress import PROGRESS_NAME
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.utils.errors import ArtifactError

IDENTITY = StoreIdentity("item_texts", "encoder", "1.0", "p", "d", "s", "i")
ROWS, DIM, BLOCK = 40, 3, 8
TABLES = [[f"i{row}" for row in range(ROWS)]]
KEYS = np.arange(ROWS, dtype=np.int32)[:, None]
VECTORS = np.random.default_rng(0).random((ROWS, DIM)).astype(np.float32) + 1


def write(folder, stop=ROWS, *, identity=IDENTITY, finish=True):
    """Write rows up to ``stop`` in blocks, as a run does; returns how many were found."""
    with VectorStoreWriter(folder, identity, TABLES, DIM) as writer:
        found = writer.count
        for start in range(found, stop, BLOCK):
            rows = slice(start, min(start + BLOCK, stop))
            writer.append(KEYS[rows], VECTORS[rows])
        if finish:
            writer.finish()
    return found


@pytest.fixture
def unfinished(tmp_path):
    """A store of which three blocks of five are written; its folder."""
    write(tmp_path / "store", 3 * BLOCK, finish=False)
    return tmp_path / "store.partial"


def finished_as_if_never_interrupted(unfinished, caplog, kept, reason):
    """Continue the store; it must end as one that was written at once, with one line about what was lost."""
    caplog.clear()
    folder = unfinished.with_name("store")
    assert write(folder) == kept
    lines = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    if reason is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert reason in lines[0]
        assert f"{kept:,} rows of it are whole and kept" in lines[0]
    store = VectorStore.open(folder, IDENTITY)
    assert np.array_equal(store.vectors, VECTORS.astype(np.float16))
    whole = unfinished.with_name("whole")
    write(whole)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
    assert not unfinished.exists()


def damaged(content, damage):
    return {
        "half": content[: len(content) // 2],
        "empty": b"",
        "garbage": b"\xff\x00garbage",
        "one byte": content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :],
        "tail": content[:-1],
    }[damage]


@pytest.mark.parametrize(
    ("name", "damage", "kept"),
    [
        ("vectors.npy", "half", 0),  # of 128 + 144 bytes: one row and a bit
        ("vectors.npy", "empty", 0),
        ("vectors.npy", "garbage", 0),
        ("vectors.npy", "one byte", 0),
        ("vectors.npy", "tail", 2 * BLOCK),
        ("vectors.npy", "gone", 0),
        ("keys.npy", "half", 0),
        ("keys.npy", "empty", 0),
        ("keys.npy", "tail", 2 * BLOCK),
        ("keys.npy", "gone", 0),
        (PROGRESS_NAME, "half", 0),
        (PROGRESS_NAME, "empty", 0),
        (PROGRESS_NAME, "garbage", 0),
        (PROGRESS_NAME, "one byte", 0),
        (PROGRESS_NAME, "tail", 2 * BLOCK),
    ],
)
def test_damaged_blocks_and_all_behind_them_are_computed_again(unfinished, caplog, name, damage, kept):
    path = unfinished / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged(path.read_bytes(), damage))
    finished_as_if_never_interrupted(unfinished, caplog, kept, PROGRESS_NAME)


def test_every_byte_of_the_rows_is_covered(unfinished, caplog):
    """One byte of each row in turn, in both files: the block of that row and all behind it are computed again."""
    for name, row_bytes in (("vectors.npy", 2 * DIM), ("keys.npy", 4)):
        path = unfinished / name
        content = path.read_bytes()
        for row in range(3 * BLOCK):
            at = len(content) - (3 * BLOCK - row) * row_bytes
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
            with_damage = VectorStoreWriter(unfinished.with_name("store"), IDENTITY, TABLES, DIM)._progress
            with_damage.verify()
            assert with_damage.rows == row // BLOCK * BLOCK
            assert f"has another SHA-256 than its rows in {name}" in with_damage.damage
        path.write_bytes(content)
    finished_as_if_never_interrupted(unfinished, caplog, 3 * BLOCK, None)


def lines_of(unfinished):
    return [json.loads(line) for line in (unfinished / PROGRESS_NAME).read_text().splitlines()]


SECOND = 2  # index of the second block's line


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 10**9},
        {"rows": 10**30},
        {"rows": -8},
        {"rows": 0},
        {"rows": 8.0},
        {"rows": True},
        {"rows": "8"},
        {"rows": None},
        {"rows": [8]},
        {"start": 0},
        {"start": 10**9},
        {"start": -1},
        {"start": "8"},
        {"start": None},
        {"sha256": None},
        {"sha256": []},
        {"sha256": "0" * 64},
        {"sha256": ["0" * 64, "0" * 64]},
        {"sha256": {"vectors": "0"}},
        {"sha256": [1, 2]},
        {"more": 1},
    ],
)
def test_no_entry_of_a_block_is_believed(unfinished, caplog, change):
    lines = lines_of(unfinished)
    lines[SECOND] = {**lines[SECOND], **change}
    (unfinished / PROGRESS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    finished_as_if_never_interrupted(unfinished, caplog, BLOCK, f"line {SECOND + 1} of {PROGRESS_NAME}")


@pytest.mark.parametrize("entry", ["start", "rows", "sha256"])
def test_a_block_without_an_entry_is_not_believed(unfinished, caplog, entry):
    lines = lines_of(unfinished)
    del lines[SECOND][entry]
    (unfinished / PROGRESS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    finished_as_if_never_interrupted(unfinished, caplog, BLOCK, "is damaged")


@pytest.mark.parametrize("line", ["[" * 100_000, "3", "null", "[]", "{", "1" * 5000, '"x"', "NaN"])
@pytest.mark.parametrize("at", [0, SECOND])
def test_lines_that_are_no_lines_of_ours(unfinished, caplog, line, at):
    lines = (unfinished / PROGRESS_NAME).read_text().splitlines()
    lines[at] = line
    (unfinished / PROGRESS_NAME).write_text("\n".join(lines) + "\n")
    finished_as_if_never_interrupted(unfinished, caplog, BLOCK if at else 0, f"line {at + 1} of {PROGRESS_NAME} is damaged")


def test_a_list_without_line_ends_is_not_read_into_memory(unfinished, caplog):
    with (unfinished / PROGRESS_NAME).open("r+b") as file:
        file.truncate(3 << 30)  # sparse: zeros behind the blocks
    finished_as_if_never_interrupted(unfinished, caplog, 3 * BLOCK, "line 5")


def test_a_store_of_something_else_is_not_continued(unfinished):
    assert write(unfinished.with_name("store"), identity=replace(IDENTITY, inputs="other")) == 0


def test_what_an_earlier_version_left_is_not_continued(unfinished, caplog):
    (unfinished / PROGRESS_NAME).unlink()
    (unfinished / "progress.json").write_text(json.dumps({"count": 10**9}))
    finished_as_if_never_interrupted(unfinished, caplog, 0, None)


def test_a_process_killed_while_it_finishes_finds_its_rows_again(unfinished, caplog, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("recbole_hnlm.data.store_writer.write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            write(unfinished.with_name("store"))
    finished_as_if_never_interrupted(unfinished, caplog, ROWS, None)


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "store.partial").write_text("x")
    with pytest.raises(ArtifactError, match="cannot write below") as error:
        write(tmp_path / "store")
    assert "\n" not in str(error.value)
