"""Finding models and trainers by name."""

import pytest
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer

import recbole_hnlm.model
from recbole_hnlm.config import Config
from recbole_hnlm.trainer.factory import get_trainer_class, safe_trainer
from recbole_hnlm.trainer.resumable import ResumableTraining
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.registry import get_model_class, model_names


def test_recboles_general_recommenders_are_found():
    assert get_model_class("LightGCN") is LightGCN
    assert {"BPR", "LightGCN", "EASE", "NCL", "DiffRec"} <= set(model_names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lightgcn", "case-sensitive, use --model=LightGCN"),
        ("LightGCM", "the nearest is LightGCN"),
        ("SASRec", "one of RecBole's sequential models"),
        ("lightgbm", "one of RecBole's decision-tree models"),
        ("../x", "no model is named"),
        ("", "no model given"),
    ],
)
def test_other_names_are_refused_with_a_hint(name, message):
    with pytest.raises(ConfigError, match=message):
        Config(name, "ml-100k")


def test_a_new_model_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "dropped.py").write_text(
        "from recbole.model.general_recommender import Pop\n\n\nclass Dropped(Pop):\n    '''A model dropped into a folder.'''\n"
    )
    monkeypatch.setattr(recbole_hnlm.model, "__path__", [*recbole_hnlm.model.__path__, str(tmp_path)])
    assert get_model_class("Dropped").__name__ == "Dropped"
    assert "Dropped" in model_names()
    with pytest.raises(ConfigError, match="use --model=Dropped"):
        get_model_class("dropped")


def test_trainers_are_made_safe_once_and_a_model_may_name_its_own():
    class OwnTrainer(Trainer):
        pass

    class Model(LightGCN):
        trainer_class = OwnTrainer

    config = Config("RecVAE", "ml-100k")
    assert get_trainer_class(config.model_class, config).__name__ == "RecVAETrainer"
    trainer = get_trainer_class(Model, config)
    assert issubclass(trainer, ResumableTraining)
    assert issubclass(trainer, OwnTrainer)
    assert safe_trainer(trainer) is trainer


def test_decision_tree_trainers_are_refused():
    from recbole.trainer import XGBoostTrainer  # noqa: PLC0415

    with pytest.raises(ConfigError, match="XGBoostTrainer is not one of"):
        safe_trainer(XGBoostTrainer)
