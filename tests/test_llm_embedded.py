import errno

import pytest

from recbole_hnlm.llm import embedded
from recbole_hnlm.utils.errors import ArtifactError


@pytest.fixture
def conversions(tmp_path, monkeypatch):
    """A cache folder of its own and a conversion that writes small files; returns the targets of the conversions."""
    monkeypatch.setenv("RECBOLE_HNLM_CACHE", str(tmp_path / "cache"))
    targets = []

    def convert(_gguf, target):
        targets.append(target)
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(b"weights" * 1000)

    monkeypatch.setattr(embedded, "_convert", convert)
    return targets


def test_a_converted_model_is_converted_once(conversions):
    folder = embedded.embedded_folder()
    assert embedded.embedded_folder() == folder
    assert len(conversions) == 1
    assert not list(folder.parent.glob(".*-*"))


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "manifest"])
def test_a_damaged_folder_is_built_again(conversions, damage):
    folder = embedded.embedded_folder()
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(good[:100])
    elif damage == "changed":
        weights.write_bytes(b"W" + good[1:])
    elif damage == "gone":
        weights.unlink()
    else:
        next(folder.glob("*manifest*")).write_text("{")
    assert embedded.embedded_folder() == folder
    assert weights.read_bytes() == good
    assert len(conversions) == 2


def test_a_full_disk_is_one_line_and_leaves_nothing_half_built(conversions, monkeypatch, tmp_path):
    def full(_gguf, target):
        (target / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedded, "_convert", full)
    with pytest.raises(ArtifactError, match=r"No space left on device.*it needs 300 MB, and RECBOLE_HNLM_CACHE"):
        embedded.embedded_folder()
    left = [path for path in (tmp_path / "cache").rglob("*") if path.name == "config.json"]
    assert left == []
    assert conversions == []
