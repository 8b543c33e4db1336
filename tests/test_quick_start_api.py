"""The Python API: runs, checkpoints, recommendations and embeddings."""

import ast
import json
import logging
import os
import random
import re
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_dataset
from recbole.model.general_recommender import BPR
from safetensors.torch import load_file

import recbole_hnlm
from recbole_hnlm import (
    Recommender,
    export_embeddings,
    load_data_and_model,
    objective_function,
    quick_start,
    recommend,
    run_recbole_hnlm,
)
from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.quick_start.loaded import LoadedModel
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, run, train_and_validate
from recbole_hnlm.testing.data import all_scores, build, write_random
from recbole_hnlm.trainer.resumable import ResumableTraining
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, DataError
from recbole_hnlm.utils.files import read_manifest

NO_TEXTS = {"negative_route": "none", "alignment_weight": 0.0}
RECBOLE_KEYS = {"best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"}


class Outside(BPR):
    """A model that is neither built in nor installed; its YAML file is not needed, since BPR's key is given."""


# --- runs -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(monkeypatch):
    """Names of the splits that a trainer evaluates, in order."""
    splits = []
    evaluate = ResumableTraining.evaluate

    def noting(self, eval_data, *args, **kwargs):
        splits.append(eval_data._sampler.phase)
        return evaluate(self, eval_data, *args, **kwargs)

    monkeypatch.setattr(ResumableTraining, "evaluate", noting)
    return splits


def test_train_and_validate_never_evaluates_the_test_split(workdir, tiny_keys, evaluated):
    keys = {**tiny_keys, "epochs": 3}
    seen = []
    chosen = train_and_validate(Config("BPR", "tiny", config_dict=keys), callback_fn=lambda *pair: seen.append(pair))
    assert set(evaluated) == {"valid"}
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert max(score for _, score in seen) == chosen.best_valid_score
    assert chosen.test_result is None
    assert json.loads(chosen.path.read_text())["test_result"] is None
    whole = run(Config("BPR", "tiny", config_dict=keys))
    assert "test" in evaluated
    assert (chosen.best_valid_score, chosen.best_valid_result) == (whole.best_valid_score, whole.best_valid_result)
    argv = (f"--data_path={tiny_keys['data_path']}", "--use_gpu=False")
    assert evaluate_checkpoint(chosen.record["checkpoint"], argv).test_result == whole.test_result


def test_an_exception_of_the_callback_ends_the_run_and_keeps_the_checkpoint(workdir, tiny_keys):
    class PrunedError(Exception):
        pass

    def prune(epoch, _score):
        if epoch == 1:
            raise PrunedError

    config = Config("BPR", "tiny", config_dict={**tiny_keys, "epochs": 5})
    with pytest.raises(PrunedError):
        train_and_validate(config, callback_fn=prune)
    last = workdir / "saved" / f"{config['run_id']}.last.pth"
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert not list((workdir / "results").glob("*.json"))


@pytest.mark.parametrize("keys", [{"eval_args": {"split": {"RS": [0.9, 0.0, 0.1]}}}, {"eval_step": 0}])
def test_without_validation_there_is_nothing_to_choose_by(workdir, tiny_keys, keys):
    with pytest.raises(ConfigError, match="by which models are chosen"):
        train_and_validate(Config("BPR", "tiny", config_dict={**tiny_keys, **keys}))


def test_a_run_returns_recboles_keys_and_where_things_are(workdir, tiny_keys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--learning_rate=9", "--epochs=50", "--nonsense=1"])
    (workdir / "a.yaml").write_text("model: BPR\nepochs: 7\nseed: 4\n")
    result = run_recbole_hnlm(dataset="tiny", config_file_list=["a.yaml"], config_dict={**tiny_keys, "epochs": 2})
    assert result.keys() > RECBOLE_KEYS
    record = json.loads(Path(result["results"]).read_text())
    assert (record["epochs"], record["seed"], record["config"]["learning_rate"]) == (2, 4, 0.001)
    assert {key: record[key] for key in result.keys() & record.keys()} == {key: result[key] for key in result.keys() & record}
    assert result["valid_score_bigger"] is True
    assert result["best_valid_score"] == result["best_valid_result"]["mrr@5"]
    assert Path(result["checkpoint"]).is_file()
    assert Path(result["log_file"]).is_file()


def test_without_saving_there_is_no_checkpoint(workdir, tiny_keys):
    assert run_recbole_hnlm("BPR", "tiny", config_dict=tiny_keys, saved=False)["checkpoint"] is None
    assert not list((workdir / "saved").glob("*.pth"))


def test_the_objective_has_recboles_keys_and_takes_numpy_numbers(workdir, tiny_keys):
    (workdir / "fixed.yaml").write_text("model: BPR\ndataset: tiny\n")
    tuned = {**tiny_keys, "learning_rate": np.float64(0.01), "embedding_size": np.int64(8), "topk": np.array([5])}
    result = objective_function(tuned, ["fixed.yaml"])
    assert result.keys() == RECBOLE_KEYS | {"model"}
    record = json.loads(next((workdir / "results").glob("*.json")).read_text())
    assert result == {**{key: record[key] for key in result.keys() & record.keys()}, "valid_score_bigger": True}
    assert (record["config"]["learning_rate"], record["config"]["embedding_size"]) == (0.01, 8)
    # Numbers of NumPy's in a checkpoint would need unpickling.
    state = torch.load(record["checkpoint"], weights_only=True)
    assert state["optimizers"]["optimizer"]["param_groups"][0]["lr"] == 0.01


def _state():
    root = logging.getLogger()
    return {
        "handlers": list(root.handlers),
        "levels": [logging.getLogger(name).level for name in (None, "httpx", "transformers")],
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "argv": list(sys.argv),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),  # noqa: NPY002
        "directory": Path.cwd(),
        "threads": torch.get_num_threads(),
    }


@pytest.mark.parametrize("learning_rate", [0.01, -1])
def test_a_call_leaves_the_process_as_it_was(workdir, tiny_keys, monkeypatch, learning_rate):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    own = logging.StreamHandler()
    logging.getLogger().addHandler(own)
    random.seed(3)
    before = _state()
    try:
        result = run_recbole_hnlm("BPR", "tiny", None, {**tiny_keys, "reproducibility": False, "learning_rate": learning_rate})
        load_data_and_model(result["checkpoint"], {"data_path": tiny_keys["data_path"]})
    except ConfigError:
        assert learning_rate < 0
    finally:
        after = _state()
        logging.getLogger().removeHandler(own)
    assert after == before


def test_runs_of_one_process_do_not_share_logs(workdir, tiny_keys):
    first, second = (run_recbole_hnlm(model, "tiny", None, {**tiny_keys, "state": "INFO"}) for model in ("BPR", "Pop"))
    logging.getLogger().warning("the caller's own line")
    logs = [Path(result["log_file"]).read_text() for result in (first, second)]
    assert [set(re.findall(r"run (\S+-tiny-\S+)", log)) for log in logs] == [{first["run_id"]}, {second["run_id"]}]
    assert all(log.count("test result") == 1 and "the caller's own line" not in log for log in logs)


def test_the_package_imports_nothing_heavy_until_a_function_is_asked_for():
    code = (
        "import sys, recbole_hnlm, recbole_hnlm.quick_start\n"
        "assert 'recommend' in dir(recbole_hnlm) and 'recommend' in dir(recbole_hnlm.quick_start)\n"
        "print({'torch', 'recbole', 'numpy', 'pandas', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_lazy_names_are_those_of_quick_start_and_of_the_stub():
    assert set(recbole_hnlm.__all__) == {*quick_start.__all__, "__version__"}
    assert all(getattr(recbole_hnlm, name) is getattr(quick_start, name) for name in quick_start.__all__)
    stub = ast.parse(Path(recbole_hnlm.__file__).with_suffix(".pyi").read_text())
    imported = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(quick_start.__all__)
    for module in (recbole_hnlm, quick_start):
        with pytest.raises(AttributeError, match="no attribute 'recomend'"):
            module.recomend  # noqa: B018


# --- recommendations --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Path of a checkpoint and the keys that it needs; half of the items have titles, one of them a dangerous one."""
    folder = tmp_path_factory.mktemp("api")
    write_tiny_dataset(folder)
    titles = {item: f"Title {item}" for item in range(0, 30, 2)} | {2: "=cmd()"}
    rows = "".join(f"i{item}\t{titles.get(item, '')}\n" for item in range(30))
    (folder / "tiny" / "tiny.item").write_text("item_id:token\tname:token_seq\n" + rows)
    keys = {"data_path": str(folder), "use_gpu": False}
    places = {f"{kind}_dir": str(folder / kind) for kind in ("checkpoint", "results", "log")}
    run_keys = {**keys, **places, **NO_TEXTS, "epochs": 3, "topk": [5], "valid_metric": "MRR@5", "state": "ERROR"}
    here = Path.cwd()
    os.chdir(folder)  # TensorBoard's folder is always the current one
    try:
        result = run_recbole_hnlm("HNLMLightGCN", "tiny", None, run_keys | {"show_progress": False, "learning_rate": 0.01})
    finally:
        os.chdir(here)
    return result["checkpoint"], keys


def _expected(loaded, user, k):
    """(item, score) of the best items that a user does not have in training, from the scores of RecBole's own interface."""
    scores = all_scores(loaded.model)[loaded.dataset.token2id("user_id", user) - 1]
    training = TrainingInteractions.from_dataset(loaded.train_data._dataset)
    scores[0] = -torch.inf
    scores[training.history_of(loaded.dataset.token2id("user_id", user))] = -torch.inf
    best = scores.argsort(descending=True)[:k]
    return [(str(loaded.dataset.id2token("item_id", int(item))), float(scores[item])) for item in best]


def test_recommendations_are_the_best_items_outside_training_in_raw_ids(trained):
    checkpoint, keys = trained
    table = recommend(checkpoint, ["u7", "u0"], 5, config_dict=keys)
    loaded = load_data_and_model(checkpoint, keys)
    assert table["user_id"].tolist() == ["u7"] * 5 + ["u0"] * 5
    assert table["rank"].tolist() == [1, 2, 3, 4, 5] * 2
    for user in ("u7", "u0"):
        rows = table[table["user_id"] == user]
        items, scores = zip(*_expected(loaded, user, 5), strict=True)
        assert rows["item_id"].tolist() == list(items)
        assert rows["score"].to_numpy() == pytest.approx(scores, abs=1e-6)
    titles = dict(zip(table["item_id"], table["title"], strict=True))
    assert all(
        title == ("" if int(item[1:]) % 2 else "=cmd()" if item == "i2" else f"Title {item[1:]}")
        for item, title in titles.items()
    )
    assert table.equals(recommend(loaded, ["u7", "u0"], 5))
    assert table.equals(recommend(tuple(loaded), (user for user in ("u7", "u0")), 5))
    assert recommend(loaded, "u7", 5)["item_id"].tolist() == table["item_id"].tolist()[:5]


def test_everyone_gets_recommendations_and_who_has_nearly_everything_gets_fewer(trained):
    checkpoint, keys = trained
    loaded = load_data_and_model(checkpoint, keys)
    table = recommend(loaded, None, 30)
    assert set(table["user_id"]) == {f"u{user}" for user in range(41)}
    assert len(table) == 41 * 30 - len(loaded.train_data._dataset)
    training = {(str(u), str(i)) for u, i in zip(*_pairs(loaded.train_data._dataset), strict=True)}
    assert not training & set(zip(table["user_id"], table["item_id"], strict=True))
    held_out = set(zip(*_pairs(loaded.test_data._dataset), strict=True)) - training
    assert held_out <= set(zip(table["user_id"], table["item_id"], strict=True))


def _pairs(dataset):
    return (dataset.id2token(field, np.asarray(dataset.inter_feat[field])) for field in ("user_id", "item_id"))


@pytest.mark.parametrize(
    ("users", "k", "kind", "message"),
    [
        (
            ["u0", "nobody", "u1"],
            5,
            DataError,
            "1 of 3 users is not in dataset tiny as it was trained on: 'nobody'; give ids .* 'u",
        ),
        ([f"x{number}" for number in range(9)], 5, DataError, r"9 of 9 users are not .*: 'x0', 'x1', 'x2' \.\.\.; give"),
        (["[PAD]"], 5, DataError, r"1 of 1 users is not .*'\[PAD\]'"),
        (["x" * 500], 5, DataError, r": 'x{1,40}\.\.\.x{1,40}'; give ids"),
        ([7], 5, DataError, "'7'"),
        (["u0"], 0, ConfigError, "topk is 0, expected a whole number from 1 to 30"),
        (["u0"], 31, ConfigError, "topk is 31, expected a whole number from 1 to 30"),
        (["u0"], 2.5, ConfigError, "topk is 2.5, expected a whole number"),
        (["u0"], True, ConfigError, "topk is True, expected a whole number"),
    ],
)
def test_users_and_counts_that_are_not_there_are_one_line(trained, users, k, kind, message):
    with pytest.raises(kind, match=message) as raised:
        recommend(trained[0], users, k, config_dict=trained[1])
    assert "\n" not in str(raised.value)


def test_a_model_alone_and_keys_for_a_loaded_model_are_refused(trained):
    loaded = load_data_and_model(*trained)
    with pytest.raises(ConfigError, match="a model alone does not know the raw ids"):
        recommend(loaded.model, ["u0"])
    with pytest.raises(ConfigError, match="the model is loaded already"):
        recommend(loaded, ["u0"], config_dict=trained[1])
    with pytest.raises(ArtifactError, match="does not exist"):
        recommend("no.pth", ["u0"])
    with pytest.raises(ConfigError, match="resume is for training"):
        recommend(trained[0], ["u0"], config_dict={**trained[1], "resume": trained[0]})


def test_a_model_from_outside_is_named_by_its_class_or_path(workdir, tiny_keys, capsys):
    result = run_recbole_hnlm(Outside, "tiny", None, {**tiny_keys, "embedding_size": 8})
    keys = {"data_path": tiny_keys["data_path"]}
    with pytest.raises(ArtifactError, match=r"is of model Outside.*--model=package\.module:Outside"):
        recommend(result["checkpoint"], ["u0"], config_dict=keys)
    by_class = recommend(result["checkpoint"], ["u0"], 3, config_dict=keys, model=Outside)
    assert len(by_class) == 3
    assert "title" not in by_class
    assert by_class.equals(recommend(result["checkpoint"], ["u0"], 3, config_dict=keys, model=f"{__name__}:Outside"))
    argv = [f"--checkpoint={result['checkpoint']}", f"--data_path={keys['data_path']}", f"--model={__name__}:Outside"]
    assert main(["recommend", *argv, "--user=u0", "--topk=3"]) == 0
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()[1:]] == by_class["item_id"].tolist()
    assert main(["export", *argv, "--out=vectors"]) == 0


def test_a_model_that_scores_pairs_alone_recommends_the_same(trained, monkeypatch):
    loaded = load_data_and_model(*trained)
    usual = recommend(loaded, ["u3", "u4"], 6)

    def absent(_interaction):
        raise NotImplementedError

    monkeypatch.setattr(loaded.model, "full_sort_predict", absent)
    pairs = recommend(loaded, ["u3", "u4"], 6)
    assert pairs["item_id"].tolist() == usual["item_id"].tolist()
    assert pairs["score"].to_numpy() == pytest.approx(usual["score"].to_numpy(), abs=1e-6)


def test_scores_that_are_no_numbers_are_refused(trained, monkeypatch):
    loaded = load_data_and_model(*trained)
    monkeypatch.setattr(loaded.model, "full_sort_predict", lambda asked: torch.full((len(asked) * 31,), torch.nan))
    with pytest.raises(ArtifactError, match="scores that are not numbers"):
        recommend(loaded, ["u0"])


def test_users_are_scored_a_batch_at_a_time_when_they_are_asked_for(trained, monkeypatch):
    loaded = load_data_and_model(trained[0], {**trained[1], "eval_users_per_batch": 8})
    scored = []
    score = type(loaded.model).full_sort_predict

    def counting(interaction):
        scored.append(len(interaction))
        return score(loaded.model, interaction)

    monkeypatch.setattr(loaded.model, "full_sort_predict", counting)
    recommender = Recommender(loaded)
    batches = recommender.batches(recommender.ids_of(f"u{number % 41}" for number in range(100_000)), 3)
    assert scored == []
    assert [len(next(batches)["rank"]) for _ in range(3)] == [24, 24, 24]
    assert scored == [8, 8, 8]


def test_ten_times_the_users_need_no_more_memory(trained):
    recommender = Recommender(load_data_and_model(trained[0], {**trained[1], "eval_users_per_batch": 64}))

    def peak(users):
        tracemalloc.start()
        rows = sum(
            len(batch["rank"]) for batch in recommender.batches(recommender.ids_of(f"u{n % 41}" for n in range(users)), 3)
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert rows == 3 * users
        return most

    peak(64)
    few, many = peak(500), peak(5_000)
    assert many - few < 2 * 8 * 4_500  # their ids, in an array that grows; their recommendations would be a million bytes


def test_a_broken_file_of_items_costs_the_titles_and_not_the_recommendations(trained, tmp_path, caplog):
    checkpoint, keys = trained
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "tiny.inter").write_bytes((Path(keys["data_path"]) / "tiny" / "tiny.inter").read_bytes())
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\nstranger\tTitle\n")
    here = {**keys, "data_path": str(tmp_path)}
    table = recommend(checkpoint, ["u0"], 3, config_dict=here)
    assert "titles are left out" in caplog.text
    assert table.equals(recommend(checkpoint, ["u0"], 3, config_dict=keys).drop(columns="title"))
    with pytest.raises(DataError, match="title_field is 'label'"):
        recommend(checkpoint, ["u0"], 3, config_dict={**here, "title_field": "label"})


# --- embeddings -------------------------------------------------------------------------------------------------------------

EXPORTED = ["BPR", "LightGCN", "NGCF", "SGL", "NCL", "SpectralCF", "HNLMLightGCN", "HNLMNGCF", "SimGCL", "KARLightGCN"]
EXPORTED += ["TextGCN", "AlphaRec", "DirectAU"]
REFUSED = ["L3AE", "NeuMF", "EASE", "Pop", "MultiVAE", "DMF", "ENMF", "SimpleX"]


def _untrained(folder, model, **keys):
    write_random(folder)
    built = build(folder, model, **keys)
    return LoadedModel(built.config, built.model, *built.data)


@pytest.mark.parametrize("model", EXPORTED)
def test_inner_products_of_what_is_exported_are_the_scores(tmp_path, model):
    loaded = _untrained(tmp_path, model, **({"num_clusters": 3} if model == "NCL" else {}))
    done = export_embeddings(loaded, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "embeddings.safetensors")
    assert (len(tensors["users"]), len(tensors["items"]), tensors["users"].shape[1]) == (done.users, done.items, done.dim)
    scores = all_scores(loaded.model)[:, 1:]
    assert torch.allclose(tensors["users"] @ tensors["items"].t(), scores, rtol=0, atol=1e-5)
    assert scores.std() > 0


@pytest.mark.parametrize("model", REFUSED)
def test_models_without_embeddings_are_refused_and_nothing_is_written(tmp_path, model):
    with pytest.raises(ConfigError, match=f"^{model} does not score by inner products of one vector") as raised:
        export_embeddings(_untrained(tmp_path, model), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["HNLMLightGCN", "LightGCN"])
def test_texts_in_the_ranking_are_no_inner_products(tmp_path, model):
    loaded = _untrained(tmp_path, model, text_score="kernel", text_score_weight=1.0)
    with pytest.raises(ConfigError, match=f"{model} ranks with texts at weight 1 .*export with --text_score=none"):
        export_embeddings(loaded, tmp_path / "out")


@pytest.mark.parametrize("ids", ["csv", "jsonl", "parquet"])
def test_an_export_says_whose_vectors_are_which(trained, tmp_path, ids):
    if ids == "parquet":
        pytest.importorskip("pyarrow")
    checkpoint, keys = trained
    out = tmp_path / "deep" / "out"
    export_embeddings(checkpoint, out, ids=ids, config_dict=keys)
    assert sorted(file.name for file in out.iterdir()) == [
        "embeddings.safetensors",
        f"items.{ids}",
        "manifest.json",
        f"users.{ids}",
    ]
    users, items = (_read(out / f"{side}.{ids}") for side in ("users", "items"))
    assert [int(row["row"]) for row in items] == list(range(30))
    tensors = load_file(out / "embeddings.safetensors")
    row = next(int(row["row"]) for row in users if row["user_id"] == "u7")
    by_raw_id = dict(zip((item["item_id"] for item in items), (tensors["items"] @ tensors["users"][row]).tolist(), strict=True))
    for item, score in _expected(load_data_and_model(checkpoint, keys), "u7", 5):
        assert by_raw_id[item] == pytest.approx(score, abs=1e-5)
    titles = {item["item_id"]: item["title"] for item in items}
    assert (titles["i4"], titles["i5"], titles["i2"]) == ("Title 4", "", "'=cmd()" if ids == "csv" else "=cmd()")
    manifest = read_manifest(out / "manifest.json", "")
    assert (manifest["model"], manifest["users"], manifest["items"], manifest["dim"]) == ("HNLMLightGCN", 41, 30, 64)
    assert set(manifest["files"]) == {"embeddings.safetensors", f"items.{ids}", f"users.{ids}"}


def _read(file):
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    if file.suffix == ".parquet":
        import pyarrow.parquet  # noqa: PLC0415 - an extra

        return pyarrow.parquet.read_table(file).to_pylist()
    import csv  # noqa: PLC0415

    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_an_export_replaces_an_earlier_one_and_nothing_else(trained, tmp_path, monkeypatch):
    checkpoint, keys = trained
    loaded = load_data_and_model(checkpoint, keys)
    out = tmp_path / "out"
    out.mkdir()
    export_embeddings(loaded, out, ids="jsonl")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    monkeypatch.setattr("recbole_hnlm.quick_start.exporting.write_manifest", _full_disk)
    with pytest.raises(ArtifactError, match="No space left"):
        export_embeddings(loaded, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    monkeypatch.undo()
    export_embeddings(loaded, out)
    assert not (out / "users.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for name, content in (("notes.txt", "mine"), ("manifest.json", '{"kind": "replies"}')):
        other = tmp_path / name.replace(".", "_")
        other.mkdir()
        (other / name).write_text(content)
        with pytest.raises(ConfigError, match="holds something that is no earlier export"):
            export_embeddings(loaded, other)
        assert (other / name).read_text() == content


def _full_disk(*_arguments):
    raise OSError(28, "No space left on device")
