"""A real RecBole split for the tests of the stages; apart from the kit, since RecBole takes seconds to import."""

from __future__ import annotations

from recbole.config import Config as RecBoleConfig
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_hnlm.config import Config


class StockConfig(RecBoleConfig):
    """RecBole's configuration, which starts with NumPy 2 too."""

    compatibility_settings = Config.compatibility_settings


def recbole_training(tmp_path, monkeypatch, interactions, **config_values):
    """Split a dataset ``toy`` with RecBole itself; returns (config, train, valid and test dataset)."""
    monkeypatch.setattr("sys.argv", ["test"])
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    columns = ("user_id:token", "item_id:token", "rating:float", "review:token_seq")
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in interactions)]
    (folder / "toy.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    values = {
        "data_path": str(tmp_path),
        "gpu_id": "",
        "artifact_dir": str(tmp_path / "artifacts"),
        "load_col": {"inter": ["user_id", "item_id", "rating"]},
        "RATING_FIELD": "rating",
        "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "RO", "group_by": "user", "mode": "full"},
        **config_values,
    }
    config = StockConfig(model="BPR", dataset="toy", config_dict=values)
    init_seed(config["seed"], reproducibility=True)
    loaders = data_preparation(config, create_dataset(config))
    return config, *(loader._dataset for loader in loaders)
