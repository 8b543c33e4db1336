"""Files with a manifest: what is written comes back, and whatever is damaged is refused in one line that names the remedy."""

from __future__ import annotations

import copy
import json
import resource
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.finetune.adapter_files import AdapterIdentity, read_manifest, save_adapter
from recbole_hnlm.finetune.transfer import TextMap
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import Artifact, JsonlArtifact, replacing

STORE = StoreIdentity("item_texts", "encoder", "1.0", "p", "d", "s", "i")
ADAPTER = AdapterIdentity("m", "t", "p", "i", "k")


def replies_kind(folder):
    artifact = JsonlArtifact(folder, "replies")
    artifact.write([{"text": "ü\u2028"}, {"text": "b"}], {"inputs": "x", "counts": {"missing": 3}})
    return artifact.manifest_path, artifact.path, lambda: (artifact.is_made_from("x"), artifact.read(), artifact.manifest())


def teacher_kind(folder):
    artifact = Artifact(folder / "vectors", folder / "manifest.json", "teacher", "delete it and run again")
    artifact.write_bytes([b"a", b"b"], {"digest": "0", "made_from": {"model": "X"}})
    return artifact.manifest_path, artifact.path, lambda: (artifact.read_bytes(), artifact.manifest())


def adapter_kind(folder):
    save_adapter(folder, {"w": torch.ones(3)}, ADAPTER, {"steps": 3, "loss": [{"step": 1, "loss": 0.5}]})
    return folder / "manifest.json", None, lambda: read_manifest(folder)


def text_map_kind(folder):
    TextMap(np.ones((2, 2), np.float32), np.ones(2, np.float32), "encoder", 0.5).save(folder, "toys")

    def read():
        text_map, manifest = TextMap.read(folder)
        return text_map.weight.tolist(), manifest

    return folder / "text_map.json", folder / "text_map.safetensors", read


def store_kind(folder):
    with VectorStoreWriter(folder / "store", STORE, [["a", "b"]], 2) as writer:
        writer.append(np.array([[0], [1]]), np.ones((2, 2)))
        writer.finish()
    return (
        folder / "store" / "manifest.json",
        folder / "store" / "vectors.npy",
        lambda: np.array(VectorStore.open(folder / "store", STORE).vectors).tolist(),
    )


KINDS = [replies_kind, teacher_kind, adapter_kind, text_map_kind, store_kind]


def places(content, path=()):
    """Paths of every entry, nested ones too."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def damages(manifest):
    """Manifests with one entry gone or of another type, and files that are no manifest."""
    for *parents, last in places(manifest):
        for value in ("gone", None, [], {}, "x", -1, 10**30, True, 0.5):
            changed = copy.deepcopy(manifest)
            holder = changed
            for key in parents:
                holder = holder[key]
            if value == "gone":
                del holder[last]
            elif holder[last] == value:
                continue
            else:
                holder[last] = value
            yield json.dumps(changed).encode()
    whole = json.dumps(manifest).encode()
    yield from (b"", b"{", b"[]", b"3", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, whole[: len(whole) // 2], b"1" * 5000)
    yield b'{"format": 2}'


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_of_a_manifest_is_read_or_ends_in_a_traceback(kind, tmp_path):
    manifest_path, _, read = kind(tmp_path)
    good, expected = manifest_path.read_bytes(), read()
    count = 0
    for damaged in damages(json.loads(good)):
        manifest_path.write_bytes(damaged)
        with pytest.raises(ArtifactError) as error:
            read()
        line = str(error.value)
        assert "\n" not in line
        assert len(line) < 700
        assert "manifest.json" in line or "text_map.json" in line or f"{manifest_path.parent}: format is" in line
        assert "run" in line or "fine-tune again" in line
        count += 1
    assert count > 40
    manifest_path.write_bytes(good)
    assert read() == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not adapter_kind])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "empty"])
def test_no_damage_of_the_content_is_read(kind, damage, tmp_path):
    _, path, read = kind(tmp_path)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-1], "changed": content[:-1] + b"\x01", "empty": b""}[damage])
    with pytest.raises(ArtifactError, match=path.name.replace(".", r"\.")):
        read()


def test_an_artefact_of_another_kind_or_format_is_refused(tmp_path):
    save_adapter(tmp_path, {"w": torch.ones(1)}, ADAPTER, {})
    with pytest.raises(ArtifactError, match="kind is adapter, expected teacher; delete it"):
        Artifact(tmp_path / "adapter.safetensors", tmp_path / "manifest.json", "teacher", "delete it").read_bytes()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["identity"] == asdict(ADAPTER)
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(ArtifactError, match="format is 1, expected 2"):
        read_manifest(tmp_path)


def test_replies_of_an_earlier_format_are_made_again(tmp_path):
    artifact = JsonlArtifact(tmp_path, "replies")
    assert not artifact.is_made_from("x")
    artifact.write([{"a": 1}], {"inputs": "x", "counts": {}})
    assert artifact.is_made_from("x")
    assert not artifact.is_made_from("y")
    content = json.loads(artifact.manifest_path.read_text())
    artifact.manifest_path.write_text(json.dumps({**content, "format": 1}))
    assert not artifact.is_made_from("x")


@pytest.fixture
def little_room():
    """Files of this process end at 100 kB, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_a_disk_that_is_full_while_tensors_are_saved_is_one_line(save, tmp_path, little_room):
    target = tmp_path / "weights"
    target.write_bytes(b"earlier")
    with (
        pytest.raises(ArtifactError, match=r"cannot write .*weights: the disk is full.*free space") as error,
        replacing(target) as partial,
    ):
        save({"w": torch.ones(100_000)}, partial)
    assert "\n" not in str(error.value)
    assert target.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_an_error_that_is_not_the_disks_is_left_alone(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), replacing(tmp_path / "x"):
        raise RuntimeError("shapes differ")
