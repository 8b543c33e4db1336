"""What a stranger's file may not do: checkpoints as configuration, pickles in dataset folders, archives that explode."""

import io
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import recbole
import torch
from conftest import write_tiny_dataset

from recbole_hnlm.config import Config
from recbole_hnlm.config.checkpoint_keys import check_names
from recbole_hnlm.data.download import unpack
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.model.building import build_model
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, DataError

PLANTED = {
    "llm_base_url": "http://stranger.example/v1",
    "llm_api_key_env": "HOME",
    "llm_backend": "openai",
    "llm_model": "/tmp/planted",
    "llm_trust_remote_code": True,
    "text_encoder": "/tmp/planted",
    "results_dir": "/tmp/planted",
    "artifact_dir": "/tmp/planted",
    "log_dir": "/tmp/planted",
    "checkpoint_dir": "/tmp/planted",
    "data_path": "/tmp/planted",
    "resume": "/tmp/planted",
    "log_wandb": True,
    "wandb_project": "planted",
    "gpu_id": "7",
    "ip": "stranger.example",
    "local_rank": 3,
    "mf_pretrain_path": "/tmp/planted",
}


@pytest.mark.parametrize("part", ["given", "defaults"])
@pytest.mark.parametrize("key", PLANTED)
def test_a_planted_place_in_a_checkpoint_has_no_effect(tiny_keys, key, part):
    saved = Config("NeuMF", "tiny", config_dict=tiny_keys).to_saved()
    saved[part][key] = PLANTED[key]
    config = Config("NeuMF", "tiny", config_dict=tiny_keys, saved=saved)
    clean = Config("NeuMF", "tiny", config_dict=tiny_keys)
    assert config[key] == clean[key]
    assert config[key] != PLANTED[key]


def test_a_checkpoint_is_written_without_places(tiny_keys):
    saved = Config("BPR", "tiny", config_dict={**tiny_keys, "llm_api_key_env": "MINE"}, strict=False).to_saved()
    assert not PLANTED.keys() & {*saved["given"], *saved["defaults"]}
    assert saved["given"]["epochs"] == 1


@pytest.mark.parametrize(
    ("model", "dataset"), [("os.path:join", "toy"), ("BPR", "../toy"), ("BPR", "/etc"), (3, "toy"), ("BPR", "")]
)
def test_names_in_a_checkpoint_are_plain(model, dataset):
    with pytest.raises(ArtifactError, match="the checkpoint names"):
        check_names(model, dataset)


class Planted:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_dataset_folder_is_not_loaded(tmp_path, tiny_keys, monkeypatch):
    folder = write_tiny_dataset(tmp_path)
    vectors, ran = folder / "tiny" / "item_emb.npy", tmp_path / "ran"
    np.save(vectors, np.array([Planted(ran)], dtype=object), allow_pickle=True)
    keys = {**tiny_keys, "data_path": str(folder), "n_cate": 2}
    with pytest.raises(ConfigError, match=r"item_emb\.npy is not a plain array of numbers"):
        Config("LDiffRec", "tiny", config_dict=keys)
    # RecBole's own way, so that the test shows what the check prevents: building the model loads the file.
    monkeypatch.setattr("recbole_hnlm.config.configurator.check_files", lambda *args: [])
    monkeypatch.setattr("recbole_hnlm.config.configurator.check_packages", lambda *args: [])
    monkeypatch.setitem(sys.modules, "kmeans_pytorch", types.ModuleType("kmeans_pytorch"))
    sys.modules["kmeans_pytorch"].kmeans = lambda **kwargs: (_ for _ in ()).throw(RuntimeError("stop"))
    config = Config("LDiffRec", "tiny", config_dict=keys)
    assert not ran.exists()
    with pytest.raises(ConfigError, match="RecBole's LDiffRec does not work with these keys"):
        build_model(config, load_data(config).train)
    assert ran.exists()


@pytest.mark.parametrize("content", [b"", b"no array", b"\x80\x04N."])
def test_a_file_that_is_no_array_is_refused(tmp_path, tiny_keys, content):
    folder = write_tiny_dataset(tmp_path)
    (folder / "tiny" / "item_emb.npy").write_bytes(content)
    with pytest.raises(ConfigError, match=r"item_emb\.npy is not a plain array of numbers"):
        Config("LDiffRec", "tiny", config_dict={**tiny_keys, "data_path": str(folder), "n_cate": 2})


@pytest.mark.parametrize(
    ("model", "key", "values"),
    [
        ("ConvNCF", "pre_model_path", {"train_method": "after_pretrain"}),
        ("RaCT", "pre_model_path", {"train_stage": "critic_pretrain"}),
        ("RaCT", "pre_model_path", {"train_stage": "finetune"}),
        ("NeuMF", "mf_pretrain_path", {"use_pretrain": True}),
        ("NeuMF", "mlp_pretrain_path", {"use_pretrain": True}),
        ("NAIS", "pretrain_path", {}),
    ],
)
def test_a_pickle_as_a_trained_model_is_not_loaded(tmp_path, tiny_keys, model, key, values):
    ran, path = tmp_path / "ran", tmp_path / "model.pth"
    torch.save({"state_dict": Planted(ran)}, path)
    with pytest.raises(ConfigError, match=f"{key}: {path} is not a checkpoint of tensors alone"):
        Config(model, "tiny", config_dict={**tiny_keys, **values, key: str(path)})
    with pytest.raises(ConfigError, match=f"{key}: expected the file of a trained model, found none at '/nowhere'"):
        Config(model, "tiny", config_dict={**tiny_keys, **values, key: "/nowhere"})
    assert not ran.exists()


def test_no_other_model_of_recboles_loads_a_file():
    """A model that begins to load files has to be added to ``check_files``."""
    folder = Path(recbole.__file__).parent / "model" / "general_recommender"
    loads = re.compile(r"(?:np|numpy|torch|pickle|joblib)\.load\(|load_npz\(|read_(?:csv|pickle)\(")
    found = {path.stem for path in folder.glob("*.py") if loads.search(path.read_text(encoding="utf-8"))}
    assert found == {"convncf", "ldiffrec", "nais", "neumf", "ract"}


@pytest.mark.parametrize("name", ["item_emb.npy", "deep/er.npy"])
def test_a_pickle_in_a_download_is_refused(tmp_path, name):
    data, ran = io.BytesIO(), tmp_path / "ran"
    np.save(data, np.array([Planted(ran)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(name, data.getvalue())
    with pytest.raises(DataError, match="is not a plain array of numbers"):
        unpack(tmp_path / "data.zip", tmp_path / "out", "http://x/data.zip")
    assert not ran.exists()


def test_a_download_of_plain_arrays_is_unpacked(tmp_path):
    data = io.BytesIO()
    np.save(data, np.ones((3, 2)))
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("item_emb.npy", data.getvalue())
        archive.writestr("toy.inter", "user_id:token\titem_id:token\n" * 100_000)
    unpack(tmp_path / "data.zip", tmp_path / "out", "http://x/data.zip")
    assert (tmp_path / "out" / "toy.inter").stat().st_size == 2_800_000


@pytest.mark.parametrize("parts", [1, 40])
def test_an_archive_that_explodes_is_not_unpacked(tmp_path, parts):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in range(parts):
            archive.writestr(f"toy{part}.inter", bytes((80 << 20) // parts))
    with pytest.raises(DataError, match="above the limit of 67,108,864"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out", "http://x/bomb.zip")
    assert not (tmp_path / "out").exists()
