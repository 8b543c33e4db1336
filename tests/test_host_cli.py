"""The command line."""

import errno
import json
import os
import signal
import time
import types

import pytest

from recbole_hnlm.cli import entry, main, run_script
from recbole_hnlm.quick_start import launch


def _arguments(keys):
    return [f"--{key}={value}" for key, value in keys.items()]


def test_the_last_line_names_the_results_file(workdir, tiny_keys, capsys):
    (workdir / "a.yaml").write_text("model: BPR\n")
    (workdir / "b c.yaml").write_text("dataset: tiny\nseed: 4\n")
    argv = ["--config_files=a.yaml", "--config_files", "b c.yaml", "--learning_rate", "1e-2", *_arguments(tiny_keys)]
    assert run_script(argv) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("results: results/BPR-tiny-")
    record = json.loads((workdir / last.removeprefix("results: ")).read_text())
    assert (record["config"]["learning_rate"], record["seed"], record["config"]["topk"]) == (0.01, 4, [5])


def test_evaluate_reads_a_checkpoint_and_other_cut_offs(workdir, tiny_keys, capsys):
    assert main(["run", "--model=BPR", "--dataset=tiny", *_arguments(tiny_keys)]) == 0
    record = json.loads((workdir / capsys.readouterr().out.splitlines()[-1].removeprefix("results: ")).read_text())
    argv = ["evaluate", f"--checkpoint={record['checkpoint']}", "--topk=5,7"]
    assert main(argv) == 0
    again = json.loads((workdir / capsys.readouterr().out.splitlines()[-1].removeprefix("results: ")).read_text())
    assert again["test_result"]["recall@5"] == record["test_result"]["recall@5"]
    assert again["test_result"]["recall@7"] >= again["test_result"]["recall@5"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model=BPR", "--dataset=ml-100k", "--learnin_rate=1"], "error: unknown key learnin_rate; the nearest"),
        (["--model=lightgcn", "--dataset=ml-100k"], "error: no model is named 'lightgcn'"),
        (["--dataset=ml-100k"], "error: no model given"),
        (["--model=BPR", "--dataset=ml-100k", "--config_files=no.yaml"], "error: config file no.yaml does not exist"),
        (
            ["--model=BPR", "--dataset=ml-100k", "--config_file=no.yaml"],
            "error: unknown key config_file; the nearest valid one is config_files",
        ),
        (["--model=BPR", "--dataset=ml-100k", "stray"], "error: unexpected argument 'stray'"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(workdir, capsys, argv, message):
    assert run_script(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "files"),
    [
        (["a.yaml b.yaml"], ("a.yaml", "b.yaml")),
        (["a.yaml,b.yaml", "c"], ("a.yaml", "b.yaml", "c")),
        (["d e.yaml"], ("d e.yaml",)),
    ],
)
def test_config_files_split_at_spaces_and_commas_unless_they_are_a_file(workdir, given, files):
    (workdir / "d e.yaml").write_text("")
    assert entry._config_files(given) == files


def test_no_verb_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(
        verb in shown for verb in ("run", "profile", "negatives", "encode", "show", "compare", "coverage", "doctor", "evaluate")
    )


@pytest.mark.parametrize("verb", ["run", "profile", "negatives", "encode", "show", "compare", "coverage", "doctor", "evaluate"])
def test_every_verb_has_a_help_with_its_options(capsys, verb):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert ("--checkpoint" if verb == "evaluate" else "--dataset") in shown
    assert "nearest valid" in shown


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt("go on with --resume=x"), 130, "interrupted: go on with --resume=x\n"),
        (KeyboardInterrupt(), 130, "interrupted: what was finished is kept"),
        (OSError(errno.ENOSPC, "No space left on device", "results/x"), 2, "error: the disk is full (results/x)"),
    ],
)
def test_interruptions_and_full_disks_are_one_line(monkeypatch, capsys, raised, code, message):
    def fail(*args):
        raise raised

    monkeypatch.setattr(launch, "launch", fail)
    assert run_script(["--model=BPR", "--dataset=ml-100k"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_a_model_of_one_epoch_is_evaluated_whatever_eval_step_says(workdir, tiny_keys, capsys):
    argv = ["--model=Pop", "--dataset=tiny", *_arguments({**tiny_keys, "epochs": 10, "eval_step": 4})]
    assert run_script(argv) == 0
    record = json.loads((workdir / capsys.readouterr().out.splitlines()[-1].removeprefix("results: ")).read_text())
    assert record["best_valid_score"] > 0


def test_a_termination_is_an_interruption_with_its_own_exit_code(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)

    def wait(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(launch, "launch", wait)
    assert run_script(["--model=BPR", "--dataset=ml-100k"]) == 143
    assert capsys.readouterr().err.startswith("interrupted: what was finished is kept")
    assert signal.getsignal(signal.SIGTERM) is before


def test_bugs_keep_their_traceback(monkeypatch):
    def fail(*args):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(launch, "launch", fail)
    with pytest.raises(PermissionError):
        run_script(["--model=BPR", "--dataset=ml-100k"])


def test_an_interrupted_run_says_what_is_kept_and_how_to_go_on(workdir, tiny_keys, monkeypatch):
    def interrupted(config, *, run_id):
        (workdir / "saved").mkdir()
        (workdir / "saved" / f"{run_id}.last.pth").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"--resume=saved/BPR-tiny-.*\.last\.pth"):
        launch.launch(launch.RunRequest("BPR", "tiny", config_dict=tiny_keys))


@pytest.fixture
def fake_stages(monkeypatch):
    seen = []

    def stage_context_of(config, dataset):
        seen.append((config["model"], len(dataset)))
        return "context"

    def run_stage(context, name):
        return types.SimpleNamespace(name=name, seconds=2.0, total=7, reused=3, generated=4, missing=0)

    monkeypatch.setattr("recbole_hnlm.semantics.attach.stage_context_of", stage_context_of)
    monkeypatch.setattr("recbole_hnlm.semantics.pipeline.run_stage", run_stage)
    monkeypatch.setattr("recbole_hnlm.cli.show.show_user", lambda context, user: f"{context} of {user}")
    return seen


@pytest.mark.parametrize("verb", ["profile", "negatives", "encode"])
def test_a_stage_runs_alone_on_the_training_split(workdir, tiny_keys, fake_stages, capsys, verb):
    assert main([verb, "--model=BPR", "--dataset=tiny", *_arguments(tiny_keys)]) == 0
    assert capsys.readouterr().out == f"{verb}: 7 in all, 3 reused, 4 made, 0 missing, 2.0 s\n"
    assert fake_stages[0][0] == "BPR"
    assert 0 < fake_stages[0][1] < 41 * 12


def test_show_prints_what_is_known_of_a_user(workdir, tiny_keys, fake_stages, capsys):
    (workdir / "a.yaml").write_text("model: BPR\n")
    assert main(["show", "--user=007", "--dataset=tiny", "--config_files=a.yaml", *_arguments(tiny_keys)]) == 0
    assert capsys.readouterr().out == "context of 007\n"


def test_of_several_processes_that_tune_the_first_one_measures(monkeypatch):
    done = []
    report = types.SimpleNamespace(name="finetune", total=6, reused=0, generated=6, missing=0, seconds=1.0)
    monkeypatch.setattr(entry, "_stage_context", lambda *_args: ({}, None, None))
    monkeypatch.setattr("recbole_hnlm.semantics.pipeline.run_stage", lambda _context, stage: done.append(stage) or report)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["finetune", "--eval", "--dataset=ml-100k"]) == 0
    assert done == ["finetune"]
