"""Finding models and trainers by name."""

import importlib

import pytest
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer

import recbole_hnlm.model
from recbole_hnlm.config import Config
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, load_checkpoint, run
from recbole_hnlm.trainer.factory import get_trainer_class, safe_trainer
from recbole_hnlm.trainer.resumable import ResumableTraining
from recbole_hnlm.utils import registry
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, HNLMError
from recbole_hnlm.utils.registry import get_model_class, get_negative_sampler, model_names


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


def test_a_new_model_is_one_file_and_its_yaml(tmp_path, monkeypatch):
    (tmp_path / "dropped.py").write_text(
        "from recbole.model.general_recommender import Pop\n\n\nclass Dropped(Pop):\n    '''A model dropped into a folder.'''\n"
    )
    monkeypatch.setattr(recbole_hnlm.model, "__path__", [*recbole_hnlm.model.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "properties_dir", lambda: tmp_path)
    assert "Dropped" not in model_names()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "Dropped.yaml").write_text("depth: 3  # (int) How deep.\n")
    assert get_model_class("Dropped").__name__ == "Dropped"
    assert "Dropped" in model_names()
    with pytest.raises(ConfigError, match="use --model=Dropped"):
        get_model_class("dropped")


@pytest.mark.parametrize("name", ["Projector", "PairwiseBackbone", "HNLMMixin", "LightGraphBackbone", "GraphViews", "Encoder"])
def test_helpers_are_no_models(name):
    assert name not in model_names()
    with pytest.raises(ConfigError, match=f"no model is named '{name}'"):
        get_model_class(name)


# --- models and samplers from outside ----------------------------------------------------------------------------------------

_MODEL = """
from recbole.model.general_recommender import BPR

from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN


class Wide(HNLMLightGCN):
    def __init__(self, config, dataset):
        self.width = config["width"]
        super().__init__(config, dataset)


class Stranger(BPR):
    pass


helper = 3
"""
_SAMPLER = """
from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, stateless


def choose(inputs):
    return Negatives(inputs.candidates[:, inputs.settings.sampler_keys["place"]])


SAMPLER = NegativeSampler(stateless(choose), least_candidates=2)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package of somebody else on the path, under a name of its own for each test; returns the name."""
    name = f"outside_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    files = {"__init__.py": "", "models.py": _MODEL, "Wide.yaml": "width: 3  # (int) How wide.\n"}
    files |= {
        "places.py": _SAMPLER,
        "places.yaml": "place: 1  # (int) Which candidate.\n",
        "lacking.py": "import no_such_package\n",
    }
    for file, text in files.items():
        (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    yield name
    registry._entry_points.cache_clear()


def claim(folder, distribution, group, name, value):
    """Install the metadata of a package that declares an entry point."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")


def configured(model, **keys):
    return Config(model, "ml-100k", config_dict={"negative_route": "none", **keys})


@pytest.mark.parametrize("given", ["path", "class", "entry point"])
def test_a_model_from_outside_brings_its_keys_and_those_of_its_bases(tmp_path, outside, given):
    path = f"{outside}.models:Wide"
    if given == "entry point":
        claim(tmp_path, "strangers", "recbole_hnlm.models", "Wide", path)
    model = {"path": path, "class": get_model_class(path), "entry point": "Wide"}[given]
    config = configured(model)
    assert config["model"] == "Wide"
    assert config.model_class is get_model_class(path)
    assert (config["width"], config["n_layers"], config["embedding_size"]) == (3, 2, 64)
    assert configured(model, width="5")["width"] == 5
    with pytest.raises(ConfigError, match="unknown key widht; the nearest valid one is width"):
        configured(model, widht=5)
    with pytest.raises(ConfigError, match="width: expected an integer, got 'much'"):
        configured(model, width="much")
    assert ("Wide" in model_names()) == (given == "entry point")


def test_a_class_without_a_yaml_file_is_told_where_its_keys_belong(outside):
    stranger = get_model_class(f"{outside}.models:Stranger")
    assert configured(stranger)["embedding_size"] == 64  # of RecBole's BPR
    with pytest.raises(ConfigError, match=r"unknown key depth.*own are declared in .*Stranger\.yaml, which does not exist"):
        configured(stranger, depth=3)


@pytest.mark.parametrize("given", ["path", "entry point"])
def test_a_sampler_from_outside_brings_its_keys(tmp_path, outside, given):
    name = f"{outside}.places:SAMPLER"
    if given == "entry point":
        claim(tmp_path, "strangers", "recbole_hnlm.negative_samplers", "places", name)
        name = "places"
    config = configured("HNLMLightGCN", negative_sampler=name)
    assert config.settings.sampler_keys == {"place": 1}
    assert configured("HNLMLightGCN", negative_sampler=name, place="0").settings.sampler_keys == {"place": 0}
    assert configured("HNLMLightGCN").settings.sampler_keys == {}
    with pytest.raises(ConfigError, match="unknown key place"):
        configured("HNLMLightGCN", place=0)
    with pytest.raises(ConfigError, match="place: expected an integer"):
        configured("HNLMLightGCN", negative_sampler=name, place="x")
    with pytest.raises(ConfigError, match="needs num_candidates >= 2, got 1"):
        configured("HNLMLightGCN", negative_sampler=name, num_candidates=1)


def test_a_sampler_does_not_take_over_keys_that_exist(tmp_path, outside):
    (tmp_path / outside / "places.yaml").write_text("place: 1\nlearning_rate: 3\n")
    with pytest.raises(ConfigError, match="declares learning_rate, a key that exists"):
        configured("HNLMLightGCN", negative_sampler=f"{outside}.places:SAMPLER")


@pytest.mark.parametrize(
    ("key", "path", "message"),
    [
        ("model", "no_such_package.x:Y", "there is no module no_such_package; install its package, or set PYTHONPATH"),
        ("model", "OUTSIDE.no_such:Y", r"there is no module outside_\w+\.no_such"),
        ("model", "OUTSIDE.models:Wild", r"has no Wild; did you mean outside_\w+\.models:Wide"),
        ("model", "OUTSIDE.models:helper", "is of type int, expected a class derived from RecBole's GeneralRecommender"),
        ("model", "pathlib:Path", "is the class Path, expected a class derived"),
        ("model", "OUTSIDE.lacking:Y", "needs the package no_such_package: pip install"),
        ("model", ":Y", "expected a name or package.module:Object"),
        ("model", "a b:Y", "expected a name or package.module:Object"),
        ("model", ".x:Y", "expected a name or package.module:Object"),
        ("model", "recbole.model.sequential_recommender:SASRec", "is of kind sequential"),
        ("negative_sampler", "OUTSIDE.models:Wide", "is of type type, expected a NegativeSampler"),
        ("negative_sampler", "OUTSIDE.places:SAMPLERS", r"did you mean outside_\w+\.places:SAMPLER\?"),
    ],
)
def test_what_cannot_be_imported_is_one_line_with_the_remedy(outside, key, path, message):
    keys = {"model": "HNLMLightGCN", key: path.replace("OUTSIDE", outside)}
    with pytest.raises(HNLMError, match=message) as caught:
        configured(keys.pop("model"), **keys)
    assert "\n" not in str(caught.value)


def test_a_name_that_two_packages_claim_is_refused(tmp_path, outside):
    claim(tmp_path, "one", "recbole_hnlm.models", "Wide", f"{outside}.models:Wide")
    claim(tmp_path, "again", "recbole_hnlm.models", "Wide", f"{outside}.models:Wide")
    assert get_model_class("Wide").__name__ == "Wide"  # they agree
    registry._entry_points.cache_clear()
    claim(tmp_path, "two", "recbole_hnlm.models", "Wide", f"{outside}.other:Wide")
    with pytest.raises(ConfigError, match=r"'Wide' is an entry point of .* and .*: choose by --model=outside") as caught:
        get_model_class("Wide")
    assert f"two ({outside}.other:Wide)" in str(caught.value)


@pytest.mark.parametrize(
    ("group", "name", "find"),
    [("recbole_hnlm.models", "LightGCN", get_model_class), ("recbole_hnlm.negative_samplers", "dns", get_negative_sampler)],
)
def test_an_entry_point_does_not_shadow_what_is_built_in(tmp_path, outside, group, name, find):
    claim(tmp_path, "rude", group, name, f"{outside}.models:Wide")
    with pytest.raises(ConfigError, match=f"'{name}' is built in, and rude .* claims the name too: uninstall that package"):
        find(name)


def test_an_entry_point_is_called_like_its_class(tmp_path, outside):
    claim(tmp_path, "strangers", "recbole_hnlm.models", "Widest", f"{outside}.models:Wide")
    with pytest.raises(ConfigError, match="'Widest' is an entry point of the class Wide: both need the same name"):
        get_model_class("Widest")


def test_a_checkpoint_imports_no_code_that_the_caller_does_not_name(workdir, tiny_keys, outside):
    path, sampler = f"{outside}.models:Wide", f"{outside}.places:SAMPLER"
    keys = {**tiny_keys, "negative_route": "none", "alignment_weight": 0.0, "width": 4, "place": 0}
    record = run(Config(path, "tiny", config_dict={**keys, "negative_sampler": sampler})).record
    assert record["model"] == "Wide"
    assert record["config"]["width"] == 4
    file = record["checkpoint"]
    wide = get_model_class(path)
    importing = pytest.MonkeyPatch()
    importing.setattr(registry.importlib, "import_module", no_import := Imports(outside))
    with pytest.raises(ArtifactError, match=r"Wide, which is neither built in nor installed.*--model=package\.module:Wide"):
        load_checkpoint(file)
    with pytest.raises(
        ConfigError, match=rf"names negative_sampler '{sampler}', and no code is imported because a file says so"
    ):
        load_checkpoint(file, model=wide)
    assert no_import.refused == []
    importing.undo()
    config, model, *_ = load_checkpoint(file, {"negative_sampler": sampler, "data_path": tiny_keys["data_path"]}, model=wide)
    assert isinstance(model, wide)
    assert (model.width, config.settings.sampler_keys) == (4, {"place": 0})
    again = evaluate_checkpoint(
        file, (f"--model={path}", f"--negative_sampler={sampler}", f"--data_path={tiny_keys['data_path']}")
    )
    assert again.record["test_result"] == record["test_result"]


class Imports:
    """Stands for ``import_module`` and notes what it is asked to import of a package."""

    def __init__(self, package):
        self.package, self.refused, self.real = package, [], importlib.import_module

    def __call__(self, name, *rest):
        if name.startswith(self.package):
            self.refused.append(name)
        return self.real(name, *rest)


@pytest.mark.parametrize("key", ["negative_sampler", "teacher_model"])
@pytest.mark.parametrize("part", ["given", "defaults"])
def test_a_saved_configuration_imports_nothing(part, key):
    saved = {"given": {}, "defaults": {}} | {part: {key: "planted.by:Stranger"}}
    with pytest.raises(ConfigError, match=f"names {key} 'planted.by:Stranger', and no code is imported"):
        Config("HNLMLightGCN", "ml-100k", config_dict={"negative_route": "none"}, saved=saved)


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
