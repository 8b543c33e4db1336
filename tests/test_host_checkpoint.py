"""The checkpoint file: what it holds, and what it refuses."""

import errno
import random

import numpy as np
import pytest
import scipy.sparse
import torch

from recbole_hnlm.trainer.checkpoint import (
    changed_counters,
    decode,
    encode,
    load_counters,
    load_weights,
    model_counters,
    read_checkpoint,
    restore_rng_state,
    rng_state,
    write_checkpoint,
)
from recbole_hnlm.utils import files
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import replacing

CONTENT = {"model": "BPR", "dataset": "d", "config": {}, "epoch": 0, "state_dict": {}, "other_parameter": encode({})}


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "x.pth"
    write_checkpoint(path, {**CONTENT, "state_dict": {"weight": torch.arange(1000.0)}})
    return path


@pytest.mark.parametrize("sparse", ["csr", "csc", "lil", "coo"])
def test_sparse_matrices_survive_with_their_format(tmp_path, sparse):
    matrix = scipy.sparse.random(7, 5, density=0.4, random_state=1, dtype=np.float32).asformat(sparse)
    write_checkpoint(tmp_path / "x.pth", {**CONTENT, "other_parameter": encode({"w": matrix})})
    back = decode(read_checkpoint(tmp_path / "x.pth")["other_parameter"])["w"]
    assert (back.format, back.shape, back.dtype) == (sparse, (7, 5), np.float32)
    assert np.array_equal(back.toarray(), matrix.toarray())


def test_arrays_matrices_and_plain_values_survive_with_their_type():
    given = {
        "array": np.arange(6.0).reshape(2, 3),
        "matrix": np.asmatrix(np.eye(2)),
        "nested": [1, (2.5, None), {"k": "v", 3: True}],
        "scalar": np.float64(0.5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    back = decode(encode(given))
    assert np.array_equal(back["array"], given["array"])
    assert isinstance(back["matrix"], np.matrix)
    assert back["nested"] == given["nested"]
    assert type(back["scalar"]) is float
    assert not back["parameter"].requires_grad


def test_objects_are_not_stored():
    with pytest.raises(ArtifactError, match="not object"):
        encode({"x": object()})


def test_random_generators_go_on_where_they_were():
    state = rng_state()
    first = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    restore_rng_state(state)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first  # noqa: NPY002


def test_truncated_damaged_and_missing_files_are_refused(good):
    data = good.read_bytes()
    good.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="truncated or not a PyTorch checkpoint"):
        read_checkpoint(good)
    at = data.index(torch.arange(1000.0).numpy().tobytes()) + 500
    good.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ArtifactError, match="damaged: the checksum"):
        read_checkpoint(good)
    good.write_bytes(b"")
    with pytest.raises(ArtifactError, match="truncated"):
        read_checkpoint(good)
    good.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        read_checkpoint(good)


class _Exploit:
    def __reduce__(self):
        return (print, ("the pickle ran",))


def test_pickled_and_foreign_checkpoints_are_refused_without_running_them(tmp_path, capsys):
    torch.save({"config": _Exploit(), "epoch": 1}, tmp_path / "recbole.pth", pickle_protocol=4)
    with pytest.raises(ArtifactError, match="holds pickled objects"):
        read_checkpoint(tmp_path / "recbole.pth")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match="has format None"):
        read_checkpoint(tmp_path / "other.pth")
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_another_model_or_shape_is_refused(good):
    class BPR(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(7))

    class Other(BPR):
        pass

    with pytest.raises(ArtifactError, match=r"weight has shape \(1000,\) in the file and \(7,\)"):
        load_weights(BPR(), read_checkpoint(good), good)
    with pytest.raises(ArtifactError, match="is of model BPR, not of Other"):
        load_weights(Other(), read_checkpoint(good), good)


def test_an_interrupted_write_leaves_the_old_file(good):
    before = good.read_bytes()

    def write_half():
        with replacing(good) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["x.pth"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(good, monkeypatch):
    before = good.read_bytes()

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_fsync", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_checkpoint(good, CONTENT)
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["x.pth"]


def test_a_full_device_met_by_pytorch_is_one_line(tmp_path, monkeypatch):
    class FullDevice:
        def __init__(self, *args, **kwargs):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", FullDevice)
    with pytest.raises(ArtifactError, match=r"cannot write .*x\.pth: the disk is full or refused the write; free space"):
        write_checkpoint(tmp_path / "x.pth", CONTENT)


def test_only_counters_that_training_changed_are_kept():
    class Annealed(torch.nn.Module):
        def __init__(self, reg_weight):
            super().__init__()
            self.reg_weight, self.update, self.history = reg_weight, 0, torch.zeros(3)
            self.table = torch.nn.Parameter(torch.zeros(2))

    first = Annealed(0.1)
    before = model_counters(first)
    first.update += 5
    first.history[1] = 2.0
    kept = changed_counters(before, model_counters(first))
    assert set(kept[""]) == {"update", "history"}
    second = Annealed(0.7)
    load_counters(second, kept)
    assert (second.reg_weight, second.update, second.history.tolist()) == (0.7, 5, [0.0, 2.0, 0.0])
