"""Damaged checkpoints: each file and each field, evaluated and resumed from, ends in one line or in right numbers."""

from __future__ import annotations

import copy
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from damage_kit import GONE, OF_BYTES, changed_at, other_values, require_one_line

from recbole_hnlm.config import Config
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, load_checkpoint, run
from recbole_hnlm.trainer.checkpoint import read_checkpoint, write_checkpoint
from recbole_hnlm.trainer.checkpoint_checks import SEAL
from recbole_hnlm.utils.errors import HNLMError
from recbole_hnlm.utils.logger import close_logger

# Fields that say where a file comes from, which nothing computes with.
FREE = {"version", "run_id"}


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_after_one(epoch, score):
    if epoch == 1:
        raise StoppedError


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, tiny_data_path):
    """Folder with ``x.pth`` and ``x.last.pth`` of a run stopped after two of three epochs, its keys, what each use gives."""
    folder = tmp_path_factory.mktemp("stopped")
    keys = {
        **{"data_path": str(tiny_data_path), "epochs": 3, "train_batch_size": 256, "topk": [5], "valid_metric": "MRR@5"},
        **{"show_progress": False, "state": "WARNING", "use_gpu": False, "embedding_size": 4, "learning_rate": 0.05},
        **{name: str(folder / name) for name in ("checkpoint_dir", "results_dir", "log_dir")},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        straight = run(Config("BPR", "tiny", config_dict=keys), run_id="straight").record
        with pytest.raises(StoppedError):
            run(Config("BPR", "tiny", config_dict=keys), run_id="x", callback_fn=stop_after_one)
        evaluated = evaluate(folder / "checkpoint_dir", keys)
    close_logger()
    return folder / "checkpoint_dir", keys, {resume: straight["test_result"], evaluate: evaluated["test_result"]}


@pytest.fixture
def copies(stopped, workdir):
    """The two checkpoints in a folder of their own, and keys that write there."""
    folder, keys, expected = stopped
    for name in ("x.pth", "x.last.pth"):
        shutil.copy(folder / name, workdir / name)
    here = {name: str(workdir / name) for name in ("checkpoint_dir", "results_dir", "log_dir")}
    return workdir, {**keys, **here}, expected


def resuming(folder, keys):
    return Config("BPR", "tiny", config_dict={**keys, "resume": str(folder / "x.last.pth")})


def resume(folder, keys):
    return run(resuming(folder, keys)).record


def evaluate(folder, keys):
    argv = [f"--{name}={keys[name]}" for name in ("data_path", "checkpoint_dir", "results_dir", "log_dir")]
    return evaluate_checkpoint(folder / "x.pth", tuple(argv)).record


def outcome(use, folder, keys):
    """The run's numbers, or None after one line."""
    try:
        return use(folder, keys)["test_result"]
    except HNLMError as error:
        require_one_line(error)
        return None


def test_undamaged_the_two_give_what_an_uninterrupted_run_gives(copies):
    folder, keys, expected = copies
    assert resume(folder, keys)["test_result"] == expected[resume]
    assert evaluate(folder, keys)["best_valid_result"] == read_checkpoint(folder / "x.pth")["best_valid_result"]


@pytest.mark.parametrize("damage", [*OF_BYTES, GONE])
@pytest.mark.parametrize("name", ["x.pth", "x.last.pth"])
def test_a_damaged_file_is_one_line(copies, name, damage):
    folder, keys, _ = copies
    path = folder / name
    if damage == GONE:
        path.unlink()
    else:
        path.write_bytes(OF_BYTES[damage](path.read_bytes()))
    if name == "x.pth":
        assert outcome(evaluate, folder, keys) is None
    # Also where the best model alone is damaged: that must not come out when all is trained.
    assert outcome(resume, folder, keys) is None
    assert not list((folder / "results_dir").glob("*"))


def test_no_changed_byte_is_read_or_ends_in_a_traceback(copies):
    path = copies[0] / "x.pth"
    content = path.read_bytes()
    refused = 0
    for at in range(0, len(content), max(1, len(content) // 400)):
        path.write_bytes(changed_at(content, at))
        try:
            found = read_checkpoint(path)
        except HNLMError as error:
            require_one_line(error)
            refused += 1
        else:
            # A byte that belongs to no content: the padding and the dates of the archive.
            assert found["config"] == read_checkpoint_of(content, path)["config"]
    assert refused > 200


def read_checkpoint_of(content, path):
    path.write_bytes(content)
    return read_checkpoint(path)


def fields_of(stopped_folder, name):
    return torch.load(stopped_folder / name, weights_only=True)


LAST_FIELDS = (
    *("format", "version", "run_id", "model", "dataset", "config", "split_fingerprint", "epoch", "best_epoch", "cur_step"),
    *("best_valid_score", "best_valid_result", "train_loss", "state_dict", "other_parameter", "counters", "optimizers"),
    *("current_optimizer", "rng", "loader", "false_negative_rates", "hardness", SEAL),
)


def test_the_list_of_fields_is_complete(stopped):
    assert set(fields_of(stopped[0], "x.last.pth")) == set(LAST_FIELDS)
    assert set(fields_of(stopped[0], "x.pth")) == set(LAST_FIELDS)


@pytest.mark.parametrize("field", LAST_FIELDS)
@pytest.mark.parametrize("use", [evaluate, resume])
def test_no_damaged_field_is_used(copies, use, field):
    folder, keys, expected = copies
    path = folder / ("x.pth" if use is evaluate else "x.last.pth")
    whole = fields_of(folder, path.name)
    # Where a run goes on, it takes seconds: fewer values.
    unused = field in FREE or (field, use) in {("split_fingerprint", evaluate), ("config", resume)}
    values = {GONE: None, **other_values(whole[field])}
    if use is resume and not unused:
        # A run that ends before anything is loaded leaves its configuration as it was.
        config = resuming(folder, keys)

        def use(*_):
            return run(config).record

    for name, value in {name: values[name] for name in ("text", "dict")}.items() if unused else values.items():
        content = copy.copy(whole)
        if name == GONE:
            del content[field]
        else:
            content[field] = value
        torch.save(content, path)
        found = outcome(use, folder, keys)
        # A field that this use does not read may be refused for its type all the same.
        assert found in ([expected[use]] if field in FREE else [None, expected[use]] if unused else [None]), name


def inner_places(value, path=()):
    """Paths into nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from inner_places(item, (*path, key))


INNER = ("best_valid_result", "train_loss", "state_dict", "other_parameter", "optimizers", "rng", "loader")


@pytest.mark.parametrize("field", INNER)
def test_no_damage_inside_a_field_is_used(copies, field):
    path = copies[0] / "x.last.pth"
    whole = fields_of(path.parent, path.name)
    count = 0
    for *parents, last in inner_places(whole[field]):
        for name in (GONE, "none", "list", "nan", "count", "tensor"):
            content = copy.deepcopy(whole)
            holder = content[field]
            for key in parents:
                holder = holder[key]
            values = other_values(holder[last])
            if name == GONE:
                del holder[last]
            elif name in values:
                holder[last] = values[name]
            else:
                continue
            torch.save(content, path)
            with pytest.raises(HNLMError) as error:
                read_checkpoint(path)
            require_one_line(error.value)
            count += 1
    assert count


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("use", [evaluate, resume, lambda folder, keys: load_checkpoint(folder / "x.pth", keys)])
def test_weights_that_are_no_numbers_are_refused(copies, use, number):
    folder, keys, _ = copies
    for name in ("x.pth", "x.last.pth"):
        content = fields_of(folder, name)
        content["state_dict"]["item_embedding.weight"][2, 1] = number
        write_checkpoint(folder / name, {key: value for key, value in content.items() if key not in {SEAL, "format"}})
    with pytest.raises(HNLMError, match=r"item_embedding\.weight' holds numbers that are not finite; train again"):
        use(folder, keys)


def rewritten(path, change):
    """Write a checkpoint again after a change, with a digest that fits, as another program could."""
    content = torch.load(path, weights_only=True)
    change(content)
    write_checkpoint(path, {key: value for key, value in content.items() if key not in {SEAL, "format"}})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["optimizers"]["optimizer"].clear(),
        lambda content: content["optimizers"]["optimizer"]["param_groups"].clear(),
        lambda content: content["optimizers"].update(optimizer=3),
        lambda content: content["optimizers"].update(stranger={}),
        lambda content: content["optimizers"]["optimizer"]["state"][0]["exp_avg"].fill_(float("nan")),
        lambda content: content.update(current_optimizer="stranger"),
        lambda content: content["rng"].clear(),
        lambda content: content["rng"].update(torch=torch.zeros(3)),
        lambda content: content["rng"].update(python=[1, 2]),
        lambda content: content["rng"].update(numpy=3),
        lambda content: content["loader"].clear(),
        lambda content: content["loader"].update(own=3),
        lambda content: content["loader"].update(own={"__kind__": "list"}),
        lambda content: content["loader"].update(generator=torch.zeros(3)),
        lambda content: content.update(counters={"": 3}),
        lambda content: content.update(other_parameter={"__kind__": "stranger"}),
        lambda content: content.update(other_parameter={"__kind__": "array", "data": 3}),
        lambda content: content.update(other_parameter={"__kind__": "sparse"}),
    ],
)
def test_a_training_state_that_does_not_fit_is_one_line_whatever_its_digest_says(copies, change):
    folder, keys, _ = copies
    rewritten(folder / "x.last.pth", change)
    assert outcome(resume, folder, keys) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 0}, "is not the best model of .*its epoch is 0, expected"),
        ({"split_fingerprint": "0" * 16}, "is not the best model of .*its split_fingerprint is '0000"),
        ({"model": "NGCF"}, "is not the best model of .*its model is 'NGCF', expected 'BPR'"),
        ({"dataset": "other"}, "is not the best model of .*its dataset is 'other', expected 'tiny'"),
    ],
)
def test_the_best_model_of_another_run_is_not_taken(copies, change, message):
    folder, keys, _ = copies
    last = torch.load(folder / "x.last.pth", weights_only=True)
    if "epoch" in change:
        change = {"epoch": last["best_epoch"] - 1 if last["best_epoch"] else 1}
        message = f"its epoch is {change['epoch']}, expected {last['best_epoch']}"
    rewritten(folder / "x.pth", lambda content: content.update(change))
    with pytest.raises(HNLMError, match=message):
        resume(folder, keys)


# --- a stranger's checkpoint ----------------------------------------------------------------------------------------------


def plants(place):
    """Keys that would send, run, read or write something, by key; ``place`` is a folder that nothing may touch."""
    return {
        **{"llm_base_url": "http://stranger.invalid/v1", "llm_api_key_env": "PLANTED_SECRET", "llm_backend": "openai"},
        **{"llm_model": str(place), "llm_revision": "planted", "llm_trust_remote_code": True, "text_encoder": str(place)},
        **{name: str(place / name) for name in ("results_dir", "artifact_dir", "log_dir", "checkpoint_dir", "data_path")},
        **{"resume": str(place / "x.pth"), "finetune_from": str(place), "mf_pretrain_path": str(place / "mf.pth")},
        **{"log_wandb": True, "wandb_project": "planted", "save_dataset": True, "dataset_save_path": str(place / "d.pth")},
        **{"save_dataloaders": True, "dataloaders_save_path": str(place / "l.pth"), "gpu_id": "7", "ip": "stranger.invalid"},
        **{"local_rank": 3, "nproc": 9, "world_size": 9, "port": 1, "offset": 2, "config_files": str(place / "c.yaml")},
    }


@pytest.mark.parametrize("part", ["given", "defaults", "places"])
def test_nothing_planted_in_a_real_checkpoint_is_obeyed(copies, monkeypatch, part):
    folder, keys, expected = copies
    place = folder / "planted"
    monkeypatch.setenv("PLANTED_SECRET", "s3cr3t")

    def refuse(*_):
        raise AssertionError("nothing of a checkpoint is connected to")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    rewritten(folder / "x.pth", lambda content: content["config"][part].update(plants(place)))
    record = evaluate(folder, keys)
    assert record["test_result"] == expected[evaluate]
    config = load_checkpoint(folder / "x.pth", {name: keys[name] for name in ("data_path", "log_dir")})[0]
    clean = Config("BPR", "tiny", config_dict={"data_path": keys["data_path"], "log_dir": keys["log_dir"]}, strict=False)
    for key, value in plants(place).items():
        assert config[key] != value, key
        assert config[key] == clean[key] or key == "gpu_id", key
    assert not place.exists()
    said = json.dumps(record) + "".join(path.read_text() for path in (folder / "log_dir").glob("*"))
    assert "s3cr3t" not in said


@pytest.mark.parametrize("key", ["negative_sampler", "teacher_model"])
def test_code_that_a_checkpoint_names_is_not_imported(copies, key):
    folder, keys, _ = copies
    (folder / "planted_module.py").write_text("raise AssertionError('imported')")
    rewritten(folder / "x.pth", lambda content: content["config"]["given"].update({key: "planted_module:SAMPLER"}))
    with pytest.raises(HNLMError, match="no code is imported because a file says so"):
        evaluate(folder, keys)
    rewritten(folder / "x.pth", lambda content: content["config"]["given"].pop(key))
    rewritten(folder / "x.pth", lambda content: content.update(model="planted_module"))
    with pytest.raises(HNLMError, match="a checkpoint cannot make us import code"):
        evaluate(folder, keys)
    assert "planted_module" not in sys.modules


class Exploit:
    """A pickle that makes a file where it is loaded."""

    def __reduce__(self):
        return (open, ("planted", "w"))


@pytest.mark.parametrize("field", ["config", "state_dict", "rng", "optimizers", "more"])
def test_a_pickle_in_a_checkpoint_is_not_run(copies, field):
    folder, keys, _ = copies
    for name, use in (("x.pth", evaluate), ("x.last.pth", resume)):
        content = torch.load(folder / name, weights_only=True)
        torch.save({**content, field: {"a": Exploit()}}, folder / name)
        with pytest.raises(HNLMError, match="holds pickled objects"):
            use(folder, keys)
    assert not (folder / "planted").exists()


def test_another_dataset_than_the_checkpoints_is_refused(copies):
    folder, keys, _ = copies
    for argv in (("--dataset=other",), ("--dataset", "ml-100k")):
        with pytest.raises(HNLMError, match=r"dataset is '.*', but checkpoint .* is of dataset tiny: leave it out"):
            load_checkpoint(folder / "x.pth", {"data_path": keys["data_path"]}, argv)
    assert load_checkpoint(folder / "x.pth", {"data_path": keys["data_path"]}, ("--dataset=tiny",))[0]["dataset"] == "tiny"


# --- where nothing can be written ------------------------------------------------------------------------------------------


def test_a_working_directory_that_cannot_be_written_is_no_matter(copies, monkeypatch):
    folder, keys, expected = copies
    here = folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.chmod(0o555)
    # Root may write everywhere: the system's answer for any other user.
    allowed = tempfile.TemporaryFile

    def refused(dir):  # noqa: A002 - the name of the argument
        if Path(dir).resolve() == here:
            raise PermissionError(13, "Permission denied")
        return allowed(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert evaluate(folder, keys)["test_result"] == expected[evaluate]
    assert resume(folder, keys)["test_result"] == expected[resume]
    assert list(here.iterdir()) == []
    assert list((folder / "log_dir" / "log_tensorboard").rglob("events*"))
    here.chmod(0o755)


def _own_process(code, *argv, **options):
    return subprocess.run([sys.executable, "-c", code, *argv], check=False, capture_output=True, text=True, **options)


_CLI = "import sys; from recbole_hnlm.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that the system lets nobody write")
def test_a_run_in_a_directory_that_nobody_can_write_keeps_its_files_elsewhere(tmp_path, tiny_keys):
    folders = {key: str(tmp_path / key) for key in ("results_dir", "checkpoint_dir", "log_dir", "artifact_dir")}
    keys = {**tiny_keys, **folders, "topk": 5, "state": "INFO"}
    done = _own_process(_CLI, "run", "--model=BPR", "--dataset=tiny", *(f"--{k}={v}" for k, v in keys.items()), cwd="/proc")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "results_dir").iterdir())) == 1
    assert list((tmp_path / "log_dir" / "log_tensorboard").rglob("events*"))
    assert "the current directory cannot be written: TensorBoard's files go to" in done.stderr


def test_without_a_package_that_recbole_imports_one_line_says_which():
    done = _own_process(f"import sys; sys.modules['tensorboard'] = None; {_CLI}", "run", "--model=BPR", "--dataset=ml-100k")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the package tensorboard, which recbole-hnlm or RecBole needs, is not installed")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_while_a_checkpoint_is_saved_is_one_line_and_keeps_the_last_one(copies, monkeypatch):
    folder, keys, _ = copies
    saved = []

    def full(content, path):
        saved.append(path)
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(HNLMError, match=r"cannot write .*: the disk is full or refused the write; free space") as error:
        resume(folder, keys)
    require_one_line(error.value)
    assert saved
    assert not list((folder / "checkpoint_dir").glob("*.tmp"))
    read_checkpoint(folder / "x.last.pth")
