"""What a stranger's file may not do: checkpoints as configuration, pickles in dataset folders, archives that explode."""

import zipfile

import numpy as np
import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.config.checkpoint_keys import check_names
from recbole_hnlm.data.download import unpack
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


def test_a_pickle_in_the_dataset_folder_is_not_loaded(tmp_path, tiny_keys):
    from conftest import write_tiny_dataset  # noqa: PLC0415

    folder = write_tiny_dataset(tmp_path)
    np.save(folder / "tiny" / "item_emb.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="may hold a pickle"):
        Config("LDiffRec", "tiny", config_dict={**tiny_keys, "data_path": str(folder), "n_cate": 2})


def test_an_archive_that_explodes_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy.inter", bytes(80 << 20))
    with pytest.raises(DataError, match="above the limit of 67,108,864"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out", "http://x/bomb.zip")
    assert not (tmp_path / "out").exists()
