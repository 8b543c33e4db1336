"""Damaged artefacts other than checkpoints: each ends in one line, or is made again with a line in the log."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest
import torch
from damage_kit import GONE, OF_BYTES, changed_at, require_one_line

from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.experiments.cells import Cell
from recbole_hnlm.experiments.methods import Method
from recbole_hnlm.experiments.store import is_finished, read_cell, write_cell
from recbole_hnlm.finetune.adapter_files import AdapterIdentity, load_adapter, save_adapter
from recbole_hnlm.finetune.tensor_files import TensorArtifact
from recbole_hnlm.finetune.transfer import TextMap
from recbole_hnlm.llm.cache import ReplyCache
from recbole_hnlm.utils.errors import HNLMError
from recbole_hnlm.utils.files import JsonlArtifact, write_manifest
from recbole_hnlm.utils.results import read_result, write_result

STORE = StoreIdentity("item_texts", "encoder", "1.0", "p", "d", "s", "i")
ADAPTER = AdapterIdentity("m", "t", "p", "i", "k")
CELL = Cell("c1", Method("A", None, "A"), 1, 1, {}, "tiny", ())


class Encoder:
    """An encoder with one trained tensor."""

    def __init__(self):
        self.tensor = torch.zeros(40)

    def trained_state(self):
        """Return the tensor by name."""
        return {"w": self.tensor}


def replies(folder):
    artifact = JsonlArtifact(folder, "profiles_items")
    artifact.write([{"item_id": f"i{row}", "text": "ü\u2028"} for row in range(9)], {"inputs": "x", "counts": {"missing": 3}})
    return artifact.read


def teacher(folder):
    entries = {"digest": str, "made_from": dict, "shapes": dict}
    stored = TensorArtifact(
        folder / "vectors.safetensors", folder / "manifest.json", "teacher", "delete it, run again", entries
    )
    manifest = {"digest": "0", "made_from": {"model": "X"}, "shapes": {"users": [3, 4]}}
    stored.write_tensors({"user_vectors": torch.ones(3, 4)}, manifest)
    return lambda: {name: value.tolist() for name, value in stored.read_tensors(["user_vectors"]).items()}


def adapter(folder):
    save_adapter(folder, {"w": torch.arange(40.0)}, ADAPTER, {"steps": 3})

    def read():
        encoder = Encoder()
        load_adapter(folder, encoder, ADAPTER)
        return encoder.tensor.tolist()

    return read


def text_map(folder):
    TextMap(np.ones((2, 2), np.float32), np.ones(2, np.float32), "encoder", 0.5).save(folder, "toys")

    def read():
        return TextMap.read(folder)[0].weight.tolist()

    return read


def store(folder):
    with VectorStoreWriter(folder / "store", STORE, [[f"i{row}" for row in range(40)]], 3) as writer:
        writer.append(np.arange(40)[:, None], np.ones((40, 3)))
        writer.finish()

    def read():
        return np.array(VectorStore.open(folder / "store", STORE).vectors).tolist()

    return read


def cell(folder):
    values = {"ndcg@5": np.array([0.5, 1.0], dtype=np.float32)}
    write_cell(folder, "c1", {"best_valid_score": 0.5}, np.array(["u1", "u2"]), values)

    def read():
        return read_cell(folder, CELL).values["ndcg@5"].tolist()

    return read


KINDS = {
    replies: ("profiles_items.jsonl", "profiles_items.manifest.json"),
    teacher: ("vectors.safetensors", "manifest.json"),
    adapter: ("adapter.safetensors", "manifest.json"),
    text_map: ("text_map.safetensors", "text_map.json"),
    store: ("store/vectors.npy", "store/keys.npy", "store/tokens_0.json", "store/manifest.json"),
    cell: ("cells/c1.json", "cells/c1.npz"),
}


@pytest.mark.parametrize("damage", [*OF_BYTES, GONE])
@pytest.mark.parametrize(
    ("make", "name"),
    [pytest.param(make, name, id=f"{make.__name__}-{name}") for make, names in KINDS.items() for name in names],
)
def test_no_damaged_file_is_read(tmp_path, make, name, damage):
    read = make(tmp_path)
    whole = read()
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink() if damage == GONE else path.write_bytes(OF_BYTES[damage](content))
    if (name, damage) == ("cells/c1.json", "tail"):
        # The line end behind the record belongs to no content.
        assert read() == whole
        return
    with pytest.raises(HNLMError) as error:
        read()
    require_one_line(error.value)
    path.write_bytes(content)
    assert read() == whole


@pytest.mark.parametrize(
    ("make", "name"),
    [pytest.param(make, name, id=f"{make.__name__}-{name}") for make, names in KINDS.items() for name in names],
)
def test_no_changed_byte_is_read(tmp_path, make, name):
    read = make(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    whole = read()
    for at in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(changed_at(content, at))
        try:
            # White space between entries of a JSON file may change; nothing else.
            assert read() == whole
            assert name.endswith("json")
        except HNLMError as error:
            require_one_line(error)


@pytest.mark.parametrize("name", ["profiles_items.jsonl", "profiles_items.manifest.json"])
@pytest.mark.parametrize("damage", [*OF_BYTES, GONE])
def test_damaged_replies_do_not_count_as_made(tmp_path, name, damage):
    artifact = JsonlArtifact(tmp_path, "profiles_items")
    replies(tmp_path)
    assert artifact.is_made_from("x")
    path = tmp_path / name
    path.unlink() if damage == GONE else path.write_bytes(OF_BYTES[damage](path.read_bytes()))
    try:
        assert not artifact.is_made_from("x")
    except HNLMError as error:
        assert name.endswith("manifest.json")
        require_one_line(error)


@pytest.mark.parametrize(
    ("make", "path", "name"),
    [
        *((replies, "profiles_items.manifest.json", name) for name in ("sha256", "counts")),
        *((teacher, "manifest.json", name) for name in ("sha256", "digest", "made_from", "shapes")),
        *((adapter, "manifest.json", name) for name in ("sha256", "identity")),
        *((text_map, "text_map.json", name) for name in ("sha256", "dataset", "text_encoder", "explained")),
        *((store, "store/manifest.json", name) for name in ("sha256", "dim", "count", "vectors_bytes", "vectors_sha256")),
        (store, "store/manifest.json", "vectors_sampled_sha256"),
    ],
)
def test_an_entry_of_another_type_is_one_line_whatever_the_manifests_digest_says(tmp_path, make, path, name):
    read = make(tmp_path)
    manifest = json.loads((tmp_path / path).read_text())
    del manifest["manifest_sha256"]
    for value in (GONE, None, [], {}, "x", 10**9, -1, True, [[[]]]):
        changed = {key: item for key, item in manifest.items() if key != name} if value == GONE else {**manifest, name: value}
        if type(value) is type(manifest[name]) and path != "store/manifest.json":
            continue
        if name == "explained" and type(value) is int:
            continue  # a share that is shown and nothing more
        write_manifest(tmp_path / path, changed)
        with pytest.raises(HNLMError) as error:
            read()
        require_one_line(error.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_tensors_that_are_no_numbers_are_refused(tmp_path, number):
    weights = torch.arange(40.0)
    weights[7] = number
    save_adapter(tmp_path / "a", {"w": weights}, ADAPTER, {})
    with pytest.raises(
        HNLMError, match=r"adapter\.safetensors: w holds numbers that are not finite; delete .* fine-tune again"
    ):
        load_adapter(tmp_path / "a", Encoder(), ADAPTER)
    TextMap(np.full((2, 2), number, np.float32), np.ones(2, np.float32), "encoder", 0.5).save(tmp_path / "t", "toys")
    with pytest.raises(HNLMError, match=r"text_map\.safetensors: weight holds numbers that are not finite; delete it"):
        TextMap.read(tmp_path / "t")


def test_a_file_without_its_tensor_or_of_another_form_is_one_line(tmp_path):
    stored = TensorArtifact(tmp_path / "x.safetensors", tmp_path / "x.json", "x", "delete it and run again")
    stored.write_tensors({"a": torch.ones(1)}, {})
    with pytest.raises(HNLMError, match=r"x\.safetensors lacks the tensor b; delete it"):
        stored.read_tensors(["a", "b"])
    for content in (b"", b"\xff" * 40, b"[" * 100_000, (10**9).to_bytes(8, "little") + b"{}"):
        stored.write_bytes([content], {})
        with pytest.raises(HNLMError, match=r"x\.safetensors is corrupt .*delete it") as error:
            stored.read_tensors()
        require_one_line(error.value)


# --- the cache of replies --------------------------------------------------------------------------------------------------

REPLIES = {f"{row:064x}": f"reply {row} " * 20 for row in range(200)}


@pytest.fixture
def cache_file(tmp_path):
    path = tmp_path / "replies.sqlite"
    with ReplyCache(path) as cache:
        cache.put_many(REPLIES)
    return path


@pytest.mark.parametrize("damage", OF_BYTES)
def test_a_damaged_cache_gives_its_replies_or_none(cache_file, damage):
    cache_file.write_bytes(OF_BYTES[damage](cache_file.read_bytes()))
    try:
        with ReplyCache(cache_file) as cache:
            found = cache.get_many(list(REPLIES))
    except HNLMError as error:
        require_one_line(error)
    else:
        assert found.items() <= REPLIES.items()


def test_no_changed_byte_of_the_cache_changes_a_reply(cache_file):
    content = cache_file.read_bytes()
    left_out = 0
    for at in range(0, len(content), len(content) // 150):
        cache_file.write_bytes(changed_at(content, at))
        try:
            with ReplyCache(cache_file) as cache:
                found = cache.get_many(list(REPLIES))
        except HNLMError as error:
            require_one_line(error)
            left_out += 1
        else:
            assert found.items() <= REPLIES.items()
            left_out += len(found) < len(REPLIES)
    assert left_out > 20


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE replies SET reply = 'another'",
        "UPDATE replies SET reply = NULL",
        "UPDATE replies SET reply = 3",
        "UPDATE replies SET reply = x'ff00'",
        "UPDATE replies SET digest = NULL",
        "UPDATE replies SET digest = ''",
        "UPDATE replies SET digest = (SELECT digest FROM replies LIMIT 1)",
        "UPDATE replies SET key = key || 'x'",
        "DROP TABLE replies",
        "ALTER TABLE replies DROP COLUMN digest",
        "PRAGMA user_version=99",
        "PRAGMA user_version=-1",
        "PRAGMA user_version=0; DELETE FROM replies",
    ],
)
def test_no_changed_row_is_a_reply(cache_file, change):
    one = next(iter(REPLIES))
    connection = sqlite3.connect(cache_file)
    connection.executescript(
        f"CREATE TABLE new (key TEXT PRIMARY KEY, reply, digest) WITHOUT ROWID; INSERT INTO new SELECT * FROM replies; "
        f"DROP TABLE replies; ALTER TABLE new RENAME TO replies; {change};"
    )
    connection.close()
    try:
        with ReplyCache(cache_file) as cache:
            found = cache.get_many(list(REPLIES))
    except HNLMError as error:
        require_one_line(error)
    else:
        assert set(found) <= {one}
        assert found.items() <= REPLIES.items()


# --- cells and results -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", OF_BYTES)
@pytest.mark.parametrize("name", ["c1.json", "c1.npz"])
def test_a_damaged_cell_is_run_again(tmp_path, caplog, name, damage):
    cell(tmp_path)
    assert is_finished(tmp_path, CELL)
    path = tmp_path / "cells" / name
    path.write_bytes(OF_BYTES[damage](path.read_bytes()[:-1]))
    assert not is_finished(tmp_path, CELL)
    (line,) = caplog.messages
    assert "its files are set aside and it runs again" in line
    assert "\n" not in line
    cell(tmp_path)
    assert is_finished(tmp_path, CELL)


@pytest.mark.parametrize("damage", [name for name in OF_BYTES if name not in {"one byte", "tail"}])
def test_a_damaged_results_file_is_one_line(tmp_path, damage):
    path = write_result(tmp_path, {"run_id": "x", "test_result": {"ndcg@5": 0.5}}).path
    assert read_result(path).run_id == "x"
    path.write_bytes(OF_BYTES[damage](path.read_bytes()))
    with pytest.raises(HNLMError, match="run again") as error:
        read_result(path)
    require_one_line(error.value)
