"""Whole runs: RecBole's own numbers, reloading, resuming, records."""

import json
import os
import signal
import subprocess
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from recbole.model.general_recommender import Pop

from recbole_hnlm.config import Config
from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, load_checkpoint, run
from recbole_hnlm.semantics import attach
from recbole_hnlm.trainer.resumable import best_beside
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, DataError, HNLMError
from recbole_hnlm.utils.registry import get_model_class

MODELS = [
    *("AsymKNN", "BPR", "DGCF", "DMF", "DiffRec", "EASE", "ENMF", "ItemKNN", "LightGCN", "MacridVAE", "MultiVAE", "NGCF"),
    *("NeuMF", "Pop", "RecVAE", "SGL", "SLIMElastic", "SimpleX"),
]


def test_stock_lightgcn_gives_recboles_own_numbers(workdir):
    keys = {"epochs": 1, "show_progress": False, "state": "WARNING", "use_gpu": False}
    result = run(Config("LightGCN", "ml-100k", config_dict=keys))
    assert result.best_valid_result["mrr@10"] == pytest.approx(0.2548, abs=1e-9)
    assert result.test_result["recall@10"] == pytest.approx(0.1361, abs=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_every_kind_of_model_trains_and_reloads_with_equal_metrics(workdir, tiny_keys, model):
    result = run(Config(model, "tiny", config_dict=tiny_keys))
    assert 0 < result.test_result["recall@5"] <= 1
    again = evaluate_checkpoint(result.record["checkpoint"], (f"--data_path={tiny_keys['data_path']}", "--use_gpu=False"))
    assert again.test_result == result.test_result
    assert again.best_valid_result == result.best_valid_result
    assert again.run_id != result.run_id


def test_load_checkpoint_gives_the_trained_model_and_its_data(workdir, tiny_keys):
    result = run(Config("LightGCN", "tiny", config_dict={**tiny_keys, "seed": 11}))
    config, model, dataset, train, valid, test = load_checkpoint(
        result.record["checkpoint"], {"topk": [3], "valid_metric": "MRR@3", "data_path": tiny_keys["data_path"]}
    )
    stored = torch.load(result.record["checkpoint"], weights_only=True)["state_dict"]
    assert torch.equal(model.state_dict()["user_embedding.weight"], stored["user_embedding.weight"])
    assert (config["seed"], config["topk"], model.training) == (11, [3], False)
    assert len(train._dataset) + len(valid._dataset) + len(test._dataset) == len(dataset)


def test_a_checkpoint_of_other_data_is_refused(workdir, tiny_keys):
    result = run(Config("BPR", "tiny", config_dict=tiny_keys))
    with pytest.raises(ArtifactError, match=r"item_embedding.weight has shape"):
        evaluate_checkpoint(
            result.record["checkpoint"], ("--item_inter_num_interval=[17,inf)", f"--data_path={tiny_keys['data_path']}")
        )


# --- stopping and resuming ---------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def _stopping_after(epoch):
    def callback(done, score):
        if done == epoch:
            raise StoppedError

    return callback


@pytest.mark.parametrize("model", ["LightGCN", "SGL", "MultiVAE", "DiffRec", "RecVAE"])
def test_stopped_and_resumed_equals_never_stopped(workdir, tiny_keys, model):
    keys = {**tiny_keys, "epochs": 4}
    straight = run(Config(model, "tiny", config_dict=keys))
    with pytest.raises(StoppedError):
        run(Config(model, "tiny", config_dict=keys), run_id="stopped", callback_fn=_stopping_after(1))
    resumed = run(Config(model, "tiny", config_dict={**keys, "resume": "saved/stopped.last.pth"}))
    assert resumed.record["train_loss"] == straight.record["train_loss"]
    assert len(set(straight.record["train_loss"])) == 4
    for name in ("best_valid_result", "best_valid_score", "best_epoch", "test_result", "epochs"):
        assert resumed.record[name] == straight.record[name], name
    assert resumed.record["resumed_from"] == "saved/stopped.last.pth"


def test_a_run_killed_by_the_system_resumes_exactly(workdir, tiny_keys):
    keys = {**tiny_keys, "epochs": 4}
    code = (
        "import os, signal, json, sys\n"
        "from recbole_hnlm.config import Config\nfrom recbole_hnlm.quick_start.runner import run\n"
        "kill = lambda epoch, score: os.kill(os.getpid(), signal.SIGKILL) if epoch == 1 else None\n"
        "run(Config('LightGCN', 'tiny', config_dict=json.loads(sys.argv[1])), run_id='killed', callback_fn=kill)\n"
    )
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", code, json.dumps(keys)], check=False, env=os.environ)
    assert process.returncode == -signal.SIGKILL
    resumed = run(Config("LightGCN", "tiny", config_dict={**keys, "resume": "saved/killed.last.pth"}))
    straight = run(Config("LightGCN", "tiny", config_dict=keys))
    assert resumed.record["train_loss"] == straight.record["train_loss"]
    assert resumed.test_result == straight.test_result


def test_resuming_a_finished_run_trains_no_more_and_keeps_its_best(workdir, tiny_keys):
    done = run(Config("BPR", "tiny", config_dict={**tiny_keys, "epochs": 3}), run_id="done")
    again = run(Config("BPR", "tiny", config_dict={**tiny_keys, "epochs": 3, "resume": "saved/done.last.pth"}))
    assert again.test_result == done.test_result
    assert again.record["train_loss"] == done.record["train_loss"]
    assert best_beside("saved/done.last.pth").name == "done.pth"


def test_resuming_an_early_stopped_run_trains_no_more(workdir, tiny_keys):
    keys = {**tiny_keys, "epochs": 50, "stopping_step": 0, "learning_rate": 0.05}
    done = run(Config("BPR", "tiny", config_dict=keys), run_id="done")
    assert done.record["epochs"] < 50
    again = run(Config("BPR", "tiny", config_dict={**keys, "resume": "saved/done.last.pth"}))
    assert again.record["epochs"] == done.record["epochs"]
    assert again.test_result == done.test_result


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"seed": 3}, "another split of tiny"), ({"embedding_size": 8}, "item_embedding.weight has shape")],
)
def test_resuming_with_other_data_or_shapes_is_refused(workdir, tiny_keys, changed, message):
    run(Config("BPR", "tiny", config_dict=tiny_keys), run_id="first")
    with pytest.raises(ArtifactError, match=message):
        run(Config("BPR", "tiny", config_dict={**tiny_keys, **changed, "epochs": 2, "resume": "saved/first.last.pth"}))


def test_resuming_without_the_best_model_is_refused(workdir, tiny_keys):
    run(Config("BPR", "tiny", config_dict=tiny_keys), run_id="first")
    (workdir / "saved" / "first.pth").unlink()
    with pytest.raises(ArtifactError, match="has no best model next to it"):
        run(Config("BPR", "tiny", config_dict={**tiny_keys, "epochs": 2, "resume": "saved/first.last.pth"}))


def test_a_checkpoint_that_is_not_there_is_reported_before_anything_is_loaded(tiny_keys):
    with pytest.raises(ConfigError, match=r"resume: checkpoint gone\.pth does not exist"):
        Config("BPR", "tiny", config_dict={**tiny_keys, "resume": "gone.pth"})


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(workdir, tiny_keys):
    keys = {**tiny_keys, "epochs": 3}
    run(Config("BPR", "tiny", config_dict=tiny_keys), run_id="good")
    before = (workdir / "saved" / "good.pth").read_bytes()

    class Poisoned(get_model_class("BPR")):
        def calculate_loss(self, interaction):
            return super().calculate_loss(interaction) * float("nan")

    Poisoned.__name__ = "BPR"
    config = Config("BPR", "tiny", config_dict={**keys, "resume": "saved/good.last.pth"})
    config.model_class = Poisoned
    with pytest.raises(HNLMError, match=r"the training loss became nan: lower learning_rate \(now 0\.001\)"):
        run(config, run_id="bad")
    assert (workdir / "saved" / "good.pth").read_bytes() == before


def test_folders_that_cannot_be_made_are_reported_before_training(workdir, tiny_keys):
    (workdir / "results").write_text("a file")
    with pytest.raises(ArtifactError, match="results_dir results cannot be a folder: results is a file; choose"):
        run(Config("BPR", "tiny", config_dict=tiny_keys))
    assert not (workdir / "saved").exists()


# --- the record --------------------------------------------------------------------------------------------------------


def test_the_results_file_says_what_was_run(workdir, tiny_keys):
    result = run(Config("BPR", "tiny", config_dict={**tiny_keys, "epochs": 2, "seed": 5}))
    record = json.loads((workdir / "results" / f"{result.run_id}.json").read_text())
    assert record == result.record
    assert (record["model"], record["dataset"], record["seed"], record["epochs"]) == ("BPR", "tiny", 5, 2)
    assert set(record["seconds"]) == {"load", "split", "train", "evaluate"}
    assert all(seconds >= 0 for seconds in record["seconds"].values())
    assert set(record["test_result"]) == {f"{name}@5" for name in ("recall", "mrr", "ndcg", "hit", "precision")}
    assert record["best_valid_score"] == record["best_valid_result"]["mrr@5"]
    assert record["best_epoch"] in {0, 1}
    assert record["versions"]["recbole"] == "1.2.1"
    assert (record["config"]["device"], record["config"]["MODEL_TYPE"]) == ("cpu", "GENERAL")
    assert (record["semantic_coverage"], record["missing"], record["stages"]) == (None, None, None)
    assert record["peak_rss_bytes"] > 50 * 2**20
    assert (workdir / record["log_file"]).is_file()
    assert (workdir / record["checkpoint"]).is_file()


def test_each_run_has_its_own_name_and_log(workdir, tiny_keys):
    keys = {**tiny_keys, "state": "INFO"}
    first, second = (run(Config("BPR", "tiny", config_dict=keys)) for _ in range(2))
    assert first.run_id != second.run_id
    logs = [(workdir / result.record["log_file"]).read_text() for result in (first, second)]
    assert first.run_id in logs[0]
    assert first.run_id not in logs[1]
    assert "epoch 0 training" in logs[0]
    assert "\x1b[" not in logs[0]


def test_secrets_reach_no_file(workdir, tiny_keys, monkeypatch):
    import logging  # noqa: PLC0415

    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    result = run(Config("BPR", "tiny", config_dict={**tiny_keys, "state": "INFO", "llm_api_key_env": "MY_KEY"}, strict=False))
    logging.getLogger().error("the server refused sk-very-secret at http://me:hunter2@host/v1")
    text = (workdir / result.record["log_file"]).read_text()
    assert "refused *** at http://***@host/v1" in text
    for path in (path for path in workdir.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert b"sk-very-secret" not in data, path
        assert b"hunter2" not in data, path


def test_a_stale_pickle_of_recbole_is_not_read(workdir, tiny_keys):
    (workdir / "saved").mkdir()
    for name in ("tiny-Dataset.pth", "tiny-for-BPR-dataloader.pth"):
        (workdir / "saved" / name).write_bytes(b"not a pickle")
    assert run(Config("BPR", "tiny", config_dict=tiny_keys)).test_result


# --- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "users"), [({}, 16), ({"eval_batch_size": 62}, 2)])
def test_users_are_scored_together_unless_eval_batch_size_is_given(workdir, tiny_keys, given, users):
    config = Config("BPR", "tiny", config_dict={**tiny_keys, "eval_users_per_batch": 16, **given})
    assert load_data(config).valid.step == users


def test_models_that_cannot_score_all_items_at_once_keep_recboles_batch(workdir, tiny_keys):
    config = Config("NeuMF", "tiny", config_dict=tiny_keys)
    load_data(config)
    assert config["eval_batch_size"] == 4096


@pytest.mark.parametrize(
    ("keys", "kind", "message"),
    [
        ({"topk": [31], "valid_metric": "MRR@31"}, ConfigError, "topk 31 is beyond the 30 items of dataset tiny"),
        ({"user_inter_num_interval": "[99,inf)"}, DataError, "dataset tiny: .*loosen"),
    ],
)
def test_data_that_cannot_be_used_is_one_line(workdir, tiny_keys, keys, kind, message):
    with pytest.raises(kind, match=message):
        load_data(Config("BPR", "tiny", config_dict={**tiny_keys, **keys}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "odd.inter is empty or begins with an empty line, expected a first line of name:type columns"),
        ("user,item\n1,2\n", "not a RecBole atomic file"),
        (
            "user_id:token\titem:token\n1\t2\n",
            r"load_col names column item_id, which \S+odd\.inter does not have \(found user_id, item\)",
        ),
    ],
)
def test_a_file_that_is_no_atomic_file_is_one_line(workdir, tiny_keys, content, message):
    (workdir / "dataset" / "odd").mkdir(parents=True)
    (workdir / "dataset" / "odd" / "odd.inter").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Config("BPR", "odd", config_dict={**tiny_keys, "data_path": "dataset"})


def test_a_broken_row_is_one_line(workdir, tiny_keys):
    (workdir / "dataset" / "odd").mkdir(parents=True)
    (workdir / "dataset" / "odd" / "odd.inter").write_text('user_id:token\titem_id:token\n1\t"2\n3\t4\n')
    with pytest.raises(DataError, match=r"odd\.inter, line 2: a quotation mark begins a cell and does not end it"):
        load_data(Config("BPR", "odd", config_dict={**tiny_keys, "data_path": "dataset"}))


def test_a_package_that_a_model_needs_is_named(workdir, tiny_keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="model NCL needs the package faiss: pip install faiss-cpu"):
        Config("NCL", "tiny", config_dict={**tiny_keys, "num_clusters": 5})


# --- models that read LLM vectors --------------------------------------------------------------------------------------


class FakePop(Pop):
    """Stands for a model with the semantic mixin; needs no YAML."""

    uses_hnlm_data = True
    needs = SemanticNeeds(pairs=True, alignment=True)
    seen = None

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        FakePop.seen = dataset.semantic_vectors


@dataclass
class FakeReport:
    name: str
    seconds: float = 1.5
    total: int = 10
    reused: int = 4
    generated: int = 5
    missing: int = 1


@pytest.fixture
def fake_stages(monkeypatch):
    calls = []

    def stage_context_of(config, dataset):
        calls.append(("context", len(dataset)))

    def build_semantics(context, kinds):
        np.random.rand(5)  # noqa: NPY002 - disturbs the global generator as a stage may
        torch.rand(3)
        return types.SimpleNamespace(coverage=0.25), [FakeReport("profile"), FakeReport("negatives", missing=0)]

    def build_train_loader(config, train_data):
        calls.append(("loader", train_data._dataset.semantic_vectors))
        return train_data

    for replacement in (stage_context_of, build_semantics, build_train_loader):
        monkeypatch.setattr(attach, replacement.__name__, replacement)
    return calls


def test_vectors_are_built_from_the_training_split_and_recorded(workdir, tiny_keys, fake_stages):
    result = run(Config(FakePop, "tiny", config_dict=tiny_keys))
    train = load_data(Config("Pop", "tiny", config_dict=tiny_keys)).train
    assert fake_stages == [("context", len(train._dataset)), ("loader", FakePop.seen)]
    assert FakePop.seen.coverage == 0.25
    assert result.record["semantic_coverage"] == 0.25
    assert result.record["missing"] == {"profile": 1, "negatives": 0}
    assert result.record["seconds"]["profile"] == 1.5
    assert result.record["stages"]["profile"]["reused"] == 4


def test_without_the_llm_no_stage_runs(workdir, tiny_keys, fake_stages):
    result = run(Config(FakePop, "tiny", config_dict={**tiny_keys, "negative_route": "none", "alignment_weight": 0.0}))
    assert fake_stages == [("loader", None)]
    assert FakePop.seen is None
    assert result.record["semantic_coverage"] is None
