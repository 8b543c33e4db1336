"""The command line."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import pytest

from recbole_hnlm import __version__
from recbole_hnlm.cli import common, entry, main, run_script
from recbole_hnlm.cli.entry import VERBS
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
    argv = ["evaluate", f"--checkpoint={record['checkpoint']}", "--topk=5,7", f"--data_path={tiny_keys['data_path']}"]
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
def test_what_the_user_can_fix_is_one_line_and_exit_code_2(workdir, capsys, argv, message):
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
        (["no such.yaml"], ("no such.yaml",)),
    ],
)
def test_config_files_split_at_spaces_and_commas_unless_they_are_a_file(workdir, given, files):
    for name in ("d e.yaml", "a.yaml"):
        (workdir / name).write_text("")
    assert common.config_files(given) == files


def test_no_verb_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().err
    for verb in (
        "run",
        "profile",
        "negatives",
        "finetune",
        "encode",
        "show",
        "compare",
        "coverage",
        "report",
        "prepare",
        "doctor",
        "evaluate",
        "recommend",
        "export",
        "analyse",
    ):
        assert re.search(rf"^    {verb}\s", shown, re.MULTILINE), verb


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["no-such-verb"], []])
def test_nothing_heavy_is_imported_before_a_verb_is_chosen(argv):
    code = (
        "import sys\n"
        "from recbole_hnlm.cli import main\n"
        f"try: main({argv})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'recbole', 'numpy', 'pandas', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_without_an_llm_import_none_of_its_packages():
    """They take several times as long to import as all the rest."""
    code = (
        "import importlib, sys\n"
        "from recbole_hnlm.cli.entry import VERBS\n"
        "for verb in VERBS.values(): importlib.import_module('recbole_hnlm.cli.' + verb.module)\n"
        "heavy = {'transformers', 'peft', 'bitsandbytes', 'accelerate', 'sentence_transformers', 'xgrammar', 'sympy',\n"
        "    'torch._dynamo', 'torch.distributed.tensor', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_LISTED = {
    "report": "--users",
    "evaluate": "--checkpoint",
    "recommend": "--checkpoint",
    "export": "--checkpoint",
    "analyse": "--compare",
    "prepare": "--max_broken_share",
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_with_its_options_and_examples(capsys, verb):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: recbole-hnlm {verb} ")
    assert _LISTED.get(verb, "--dataset") in shown
    assert ("Nothing is filtered" if verb == "prepare" else "nearest valid") in shown
    assert f"\n  recbole-hnlm {verb} --" in shown or verb == "doctor"
    assert ("--eval" in shown) == (verb == "finetune")


def test_the_script_shows_its_own_command_in_its_help(capsys):
    with pytest.raises(SystemExit):
        run_script(["--help"])
    shown = capsys.readouterr().out
    assert "\n  python run_recbole_hnlm.py --model=HNLMLightGCN --dataset=ml-100k\n" in shown
    assert "recbole-hnlm run" not in shown


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt("go on with --resume=x"), 130, "interrupted: go on with --resume=x\n"),
        (KeyboardInterrupt(), 130, "interrupted: what was finished is kept"),
        (OSError(errno.ENOSPC, "No space left on device", "results/x"), 2, "error: the disk is full (results/x)"),
        (
            ModuleNotFoundError("No module named 'recbole'", name="recbole"),
            2,
            "error: RecBole is not installed: pip install --no-deps",
        ),
    ],
)
def test_interruptions_and_full_disks_are_one_line(monkeypatch, capsys, raised, code, message):
    def fail(*args):
        raise raised

    monkeypatch.setattr("recbole_hnlm.cli.run.launch", fail)
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

    monkeypatch.setattr("recbole_hnlm.cli.run.launch", wait)
    assert run_script(["--model=BPR", "--dataset=ml-100k"]) == 143
    assert capsys.readouterr().err.startswith("interrupted: what was finished is kept")
    assert signal.getsignal(signal.SIGTERM) is before


_INTERRUPTED = """
import atexit, os, signal, sys, time, types
from recbole_hnlm.cli import main

class Stderr:
    def write(self, text):
        {during}
        return sys.__stderr__.write(text)
    def flush(self):
        sys.__stderr__.flush()

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

def run(args, rest):
    sys.stderr = Stderr()
    {before}
    interrupt()

signal.signal(signal.SIGINT, signal.default_int_handler)
verb = types.SimpleNamespace(NOTES="", EXAMPLES=None, add_options=lambda parser: None, run=run)
sys.modules["recbole_hnlm.cli.run"] = verb
{atexit}
sys.exit(main(["run"]))
"""


@pytest.mark.parametrize("again", [{"during": "interrupt()"}, {"atexit": "atexit.register(interrupt)"}])
def test_a_second_interruption_leaves_one_line(again):
    code = _INTERRUPTED.format(**{"before": "pass", "during": "pass", "atexit": "", **again})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "interrupted: what was finished is kept; run the same command again to continue\n"
    assert done.returncode == 130


def test_an_interruption_that_was_lost_can_be_repeated_later():
    lost = "\n    ".join(["try: interrupt()", "except KeyboardInterrupt: time.sleep(2.1)"])
    code = _INTERRUPTED.format(before=lost, during="pass", atexit="")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (130, 1)


def test_bugs_keep_their_traceback(monkeypatch):
    def fail(*args):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("recbole_hnlm.cli.run.launch", fail)
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

    monkeypatch.setattr("recbole_hnlm.cli.request.stage_context_of", stage_context_of)
    monkeypatch.setattr("recbole_hnlm.cli.stage.run_stage", run_stage)
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
    monkeypatch.setattr("recbole_hnlm.cli.stage.stage_context", lambda *_args: ({}, None, None))
    monkeypatch.setattr("recbole_hnlm.cli.stage.run_stage", lambda _context, stage: done.append(stage) or report)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["finetune", "--eval", "--dataset=ml-100k"]) == 0
    assert done == ["finetune"]


def test_who_looks_on_sees_a_line_before_the_imports(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(entry, "_imported", lambda module: seen.append(capsys.readouterr().err) or sys.exit(3))
    for is_terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        with pytest.raises(SystemExit):
            main(["doctor"])
    assert seen == [f"recbole-hnlm {__version__}, doctor: loading PyTorch and RecBole\n", ""]
