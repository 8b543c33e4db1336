"""The verb ``tune`` from end to end, its files, what it says of the LLM, and RecBole's own ``HyperTuning`` on our objective."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from tune_kit import plan_of, scripted

from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.experiments import tune_jobs
from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import Outcome
from recbole_hnlm.experiments.space import read_space
from recbole_hnlm.experiments.trial import TrialRun
from recbole_hnlm.experiments.tune import SearchOptions
from recbole_hnlm.experiments.tune_checks import llm_lines
from recbole_hnlm.experiments.tune_loop import work
from recbole_hnlm.experiments.tune_report import importances_of, write_reports
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

SPACE = "learning_rate choice [0.00001,0.05]\nembedding_size choice [8,16]\n"


@pytest.fixture
def command(workdir, tiny_keys):
    """A search of four points over the tiny dataset."""
    (workdir / "hyper.test").write_text(SPACE)
    keys = {**tiny_keys, "epochs": 3}
    given = [f"--{key}={value}" for key, value in keys.items()]
    return ["tune", "--model=BPR", "--dataset=tiny", "--params_file=hyper.test", "--out=out", *given]


def test_a_search_from_end_to_end(workdir, command, capsys, monkeypatch):
    command += ["--algo=exhaustive", "--seeds=2", "--pruner=none"]
    assert main([*command, "--trials=3"]) == 0
    said = capsys.readouterr().out
    assert "tuned (hyper.test): learning_rate choice [1e-05, 0.05]; embedding_size choice [8, 16]" in said
    assert "3 trials finished, 0 pruned, 0 failed" in said
    # Further trials are added to those; nothing is left over of the seeds' means.
    assert main([*command, "--jobs=2", "--report=page.html"]) == 0
    assert "on validation" in (workdir / "page.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "3 of 4 trials have ended" in said
    out = workdir / "out"
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert [(row["learning_rate"], row["embedding_size"]) for row in rows] == [
        (rate, size) for rate in ("1e-05", "0.05") for size in ("8", "16")
    ]
    for row in rows:
        assert sum(map(float, row["scores"].split())) / 2 == pytest.approx(float(row["value"]))
    summary = json.loads((out / "tune.json").read_text())
    best = max(rows, key=lambda row: float(row["value"]))
    assert (summary["best"]["trial"], summary["best"]["value"]) == (int(best["trial"]), pytest.approx(float(best["value"])))

    # No trial saw the test split; the winner did, once for each seed.
    records = [json.loads(path.read_text()) for path in sorted((out / "trials").glob("*.json"))]
    assert len(records) == 8
    assert {record["test_result"] is None for record in records} == {True}
    assert len({record["split_fingerprint"] for record in records}) == 1
    winners = [json.loads(Path(path).read_text()) for path in summary["winner"]]
    assert [record["seed"] for record in winners] == [2020, 2021]
    scores = [record["best_valid_score"] for record in winners]
    assert sum(scores) / 2 == pytest.approx(summary["best"]["value"])
    assert summary["test"]["mrr@5"] == pytest.approx(sum(record["test_result"]["mrr@5"] for record in winners) / 2)
    assert not list((out / "checkpoints").iterdir())
    assert {Path(record["checkpoint"]).parent for record in winners} == {Path("out") / "winner" / f"trial-{best['trial']}"}

    # RecBole's format: a line of keys, the metrics on validation, those on test where there are any.
    blocks = (out / "hyper.result").read_text().split("\n\n")[:4]
    lines = [block.strip("\n").split("\n") for block in blocks]
    assert [block[0] for block in lines] == [
        f"learning_rate:{rate}, embedding_size:{size}" for rate in ("1e-05", "0.05") for size in (8, 16)
    ]
    assert all(block[1] == "Valid result:" and block[2].startswith("recall@5 : ") for block in lines)
    assert [len(block) > 4 and block[4].startswith("recall@5 : ") for block in lines].count(True) == 1
    assert (out / "tune.png").read_bytes()[:4] == b"\x89PNG"

    # best.yaml is a run of its own, with the same numbers.
    assert yaml.safe_load((out / "best.yaml").read_text())["model"] == "BPR"
    again = run(Config(config_file_list=[str(out / "best.yaml")]))
    assert again.best_valid_score == winners[0]["best_valid_score"]
    assert again.test_result == winners[0]["test_result"]

    # Over: no process is started, and the winner is not tested again.
    monkeypatch.setattr(tune_jobs, "_WORKER", ("/nonexistent",))
    monkeypatch.setattr(TrialRun, "test", lambda self, *args: pytest.fail("a second time"))
    assert main(command) == 0
    assert "4 of 4 trials have ended" in capsys.readouterr().out
    with_other_settings = [token for token in command if not token.startswith("--epochs")]
    assert main([*with_other_settings, "--epochs=2"]) == 2
    assert "error: out holds a search with other settings: epochs was 3, now 2; give the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--learning_rate=0.1"], "error: --learning_rate is given, and hyper.test tunes it"),
        (["--trials=0"], "error: trials: expected at least 1, got 0"),
        (["--jobs=0"], "error: jobs: expected at least 1, got 0"),
        (["--seeds=x"], "error: seeds: expected a number"),
        (["--params_file=no.test"], "error: params_file no.test does not exist"),
        (["--resume=x"], "error: leave out --resume: a search makes its own runs"),
        (["--learning_rat=1"], "unknown key learning_rat; the nearest valid one is learning_rate"),
        (["--storage=x"], "error: storage: expected a URL"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line_before_any_trial(workdir, command, capsys, given, message):
    assert main([*command, *given]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (workdir / "out").exists() or not list((workdir / "out").glob("trials*"))


def test_no_model_and_no_shipped_space_are_one_line(workdir, capsys):
    assert main(["tune", "--dataset=ml-100k", "--out=out"]) == 2
    assert "no model given: use --model=NAME" in capsys.readouterr().err
    assert main(["tune", "--model=Pop", "--dataset=ml-100k", "--out=out"]) == 2
    assert "no search space is shipped for Pop" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="jobs: expected at least 1"):
        SearchOptions(jobs=0)


def test_a_point_that_is_pruned_stops_training_at_once(workdir, tiny_keys):
    trial_run = TrialRun("BPR", "tiny", (), {**tiny_keys, "epochs": 5}, (7,), "out")
    seen = []

    def report(epoch, score):
        seen.append(epoch)
        if epoch == 1:
            raise KeyError("pruned")

    with pytest.raises(KeyError):
        trial_run.objective({"learning_rate": 0.01}, report, "trial-0")
    assert seen == [0, 1]


# --- reports ---------------------------------------------------------------------------------------------------------------


def _reported(folder, tiny_keys, objective, trials=12):
    search = Search(plan_of(folder, trials=trials))
    work(search, objective)
    trial_run = TrialRun("LightGCN", "tiny", (), tiny_keys, (1,), str(folder))
    return search, write_reports(search, trial_run, "MRR@5", [])


def test_the_key_that_matters_is_the_most_important(workdir, tiny_keys):
    search, summary = _reported(workdir / "out", tiny_keys, scripted)
    assert next(iter(summary["importances"])) == "n_layers"
    assert sum(summary["importances"].values()) == pytest.approx(1.0)
    assert summary["test"] is None
    best = yaml.safe_load((workdir / "out" / "best.yaml").read_text())
    assert (best["model"], best["dataset"], best["n_layers"]) == ("LightGCN", "tiny", 3)
    assert best["learning_rate"] == search.best().params["learning_rate"]
    assert best["data_path"] == tiny_keys["data_path"]
    assert importances_of(Search(plan_of(workdir / "empty"))) == {}


def test_a_search_of_failures_alone_is_reported_without_a_winner(workdir, tiny_keys):
    def failing(point, report, name):
        raise ConfigError("no luck")

    _, summary = _reported(workdir / "out", tiny_keys, failing, trials=2)
    assert (summary["best"], summary["trials"]["failed"]) == (None, 2)
    assert summary["failures"] == {"0": "no luck", "1": "no luck"}
    assert not (workdir / "out" / "best.yaml").exists()
    assert (workdir / "out" / "trials.csv").read_text().count("no luck") == 2


def test_equal_scores_and_a_single_trial_are_drawn(workdir, tiny_keys):
    for place, trials in enumerate((1, 5)):
        folder = workdir / str(place)
        _reported(folder, tiny_keys, lambda point, report, name: Outcome(0.5, {"valid": {}}), trials)
        assert (folder / "tune.png").stat().st_size > 1000


def test_a_damaged_record_of_the_winner_is_one_line(workdir):
    from recbole_hnlm.experiments.tune import _read_winner  # noqa: PLC0415

    (workdir / "winner.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"winner.json is damaged .*: delete it"):
        _read_winner(workdir / "winner.json", {})


# --- the LLM ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config_of(workdir, tiny_keys, tiny_data_path):
    """Configurations of an HNLM model on ``tiny`` with titles, whose LLM is a server that is never asked."""
    folder = workdir / "dataset" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_text((tiny_data_path / "tiny" / "tiny.inter").read_text())
    rows = "".join(f"i{item}\tTitle {item}\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    server = {"llm_backend": "openai", "llm_model": "m", "llm_base_url": "http://localhost:1/v1"}
    keys = {**tiny_keys, **server, "data_path": "dataset"}
    return lambda point: Config("HNLMBPR", "tiny", None, {**keys, **point}, strict=False)


def test_keys_of_the_loss_ask_the_llm_once(config_of):
    space = read_space(["mix_weight choice [0.01,0.1]", "learning_rate uniform 0.1,1"], "f")
    (line,) = llm_lines(space, config_of, allow=False)
    assert line.startswith("the LLM is asked once for all trials: 1")  # 30 items at most, 41 users, 41 pairs
    assert line.endswith(" prompts")
    plain = read_space(["learning_rate uniform 0.1,1"], "f")
    without = lambda point: config_of({**point, "negative_route": "none", "alignment_weight": 0})  # noqa: E731
    assert llm_lines(plain, without, allow=False) == []


def test_keys_that_ask_the_llm_again_are_named_with_their_prompts_and_refused(config_of):
    space = read_space(["semantic_negatives_per_user choice [1,2]", "learning_rate uniform 0.1,1"], "f")
    with pytest.raises(ConfigError, match=r"semantic_negatives_per_user asks the LLM again for every value .*--allow_llm_keys"):
        llm_lines(space, config_of, allow=False)
    (line,) = llm_lines(space, config_of, allow=True)
    counts = [int(part.split(": ")[1].split()[0]) for part in line.split("(")[1].rstrip(")").split("; ")]
    assert 41 <= counts[1] - counts[0] <= 41 + 30  # one more pair for each user, and profiles of its items
    endless = read_space(["llm_temperature uniform 0,1"], "f")
    assert "asks the LLM again for every trial" in llm_lines(endless, config_of, allow=True)[0]


# --- RecBole's own tuning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_recboles_hypertuning_runs_on_our_objective(workdir, tiny_keys, algo):
    pytest.importorskip("hyperopt", reason="the extra `hyperopt` is not installed")
    from recbole.trainer import HyperTuning  # noqa: PLC0415

    from recbole_hnlm.quick_start import objective_function  # noqa: PLC0415

    (workdir / "fixed.yaml").write_text(yaml.safe_dump({"model": "BPR", "dataset": "tiny", **tiny_keys}))
    (workdir / "hyper.test").write_text("learning_rate choice [0.00001,0.05]\n")
    tuning = HyperTuning(
        objective_function=objective_function,
        algo=algo,
        early_stop=10,
        max_evals=2,
        params_file="hyper.test",
        fixed_config_file_list=["fixed.yaml"],
    )
    tuning.run()
    tuning.export_result(output_file="hyper.result")
    assert 1 <= len(tuning.params2result) <= 2
    assert tuning.best_params["learning_rate"] in {0.00001, 0.05}
    assert "Test result:" in (workdir / "hyper.result").read_text()
