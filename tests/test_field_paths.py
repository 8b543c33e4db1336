"""Paths that a user gives to any verb: what is there instead is said in one line with exit code 2, before any work."""

import os
import sys
from pathlib import Path

import pytest

from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.experiments.space import read_space_file
from recbole_hnlm.quick_start.runner import prepare_run
from recbole_hnlm.utils import given_paths
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.given_paths import input_file, output_file, output_folder
from recbole_hnlm.utils.values import load_yaml

LONG = "x" * 300


@pytest.fixture
def places(workdir, monkeypatch):
    """One of everything that can be at a path; nothing may be trained or loaded."""
    monkeypatch.setenv("HOME", str(workdir / "home"))
    (workdir / "folder").mkdir()
    (workdir / "a b é").mkdir()
    (workdir / "home").mkdir()
    (workdir / "text").write_text("hello\n")
    (workdir / "empty").write_text("")
    (workdir / "binary").write_bytes(bytes(range(256)) * 8)
    (workdir / "loop").symlink_to("loop")
    (workdir / "dangling").symlink_to("nowhere")
    for name in ("cli.compare.run_cells", "experiments.tune.run_search", "quick_start.loaded.load_checkpoint"):
        monkeypatch.setattr(f"recbole_hnlm.{name}", lambda *_, **__: pytest.fail("work has begun"))
    return workdir


@pytest.fixture
def refused(places, capsys, tiny_data_path):
    """Run a verb that must fail; returns its line."""

    def run(verb, *argv):
        before = sorted(places.rglob("*"))
        keys = ("--use_gpu=False", "--topk=5", "--valid_metric=MRR@5", "--epochs=1", f"--data_path={tiny_data_path}")
        code = main([verb, *argv, *(keys if verb != "prepare" else ())])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), (code, out, err)
        assert err.count("\n") == 1
        assert err.startswith("error: ")
        assert len(err) < 600
        assert sorted(places.rglob("*")) == before
        return err

    return run


#: What is given, and what the line says of it.
NO_FILE = {
    "missing": "missing does not exist (looked for /",
    "text/below": "text/below does not exist (looked for /",
    "folder": "folder is a folder, not a file",
    ".": ". is a folder, not a file",
    "": "is empty",
    "loop": "loop cannot be used: Too many levels of symbolic links",
    "dangling": "dangling cannot be used: it is a symbolic link to nothing",
    "~/missing": "home/missing); expected ",
    "~nobody-of-this-name/x": "there is no user whose home folder it could mean; write the path in full",
    LONG: "cannot be used: File name too long",
    "a b é/missing é": "a b é/missing é does not exist (looked for /",
}
TRAINED = ("--model=BPR", "--dataset=tiny")
#: Options that name a file to read: verb, option, the other options, what the line begins with, what it says is expected.
READERS = {
    "evaluate checkpoint": ("evaluate", "checkpoint", (), "checkpoint ", "expected a .pth file that a run wrote"),
    "recommend checkpoint": ("recommend", "checkpoint", ("--user=u1",), "checkpoint ", "expected a .pth file that a run wrote"),
    "export checkpoint": ("export", "checkpoint", ("--out=out",), "checkpoint ", "expected a .pth file that a run wrote"),
    "recommend users": (
        "recommend",
        "users",
        ("--checkpoint=x",),
        "--users: file ",
        "expected a file with one user's id a line",
    ),
    "run resume": ("run", "resume", TRAINED, "resume: checkpoint ", "expected a .last.pth file that a run wrote"),
    "tune params_file": ("tune", "params_file", (*TRAINED, "--out=out"), "params_file ", "expected a file of lines such as"),
    "compare tune": (
        *("compare", "tune", ("--models=BPR", "--dataset=tiny", "--seeds=1", "--out=out")),
        *("params_file ", "expected a file of lines such as"),
    ),
    **{
        f"{verb} config_files": (verb, "config_files", options, "config file ", "expected a YAML file of keys")
        for verb, options in {
            "run": TRAINED,
            "coverage": ("--dataset=tiny",),
            "show": ("--dataset=tiny", "--user=u1"),
            "profile": ("--dataset=tiny",),
            "tune": (*TRAINED, "--out=out"),
            "compare": ("--models=BPR", "--dataset=tiny", "--seeds=1", "--out=out"),
        }.items()
    },
    "prepare reviews": (
        *("prepare", "reviews", ("--source=yelp", "--meta=text", "--name=n", "--out=out")),
        *("--reviews: ", "expected a dump, plain or gzip; download it first"),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_cannot_be_read_is_one_line(places, refused, reader, monkeypatch):
    if reader.startswith("recommend checkpoint") or reader.startswith("export"):
        monkeypatch.undo()
        monkeypatch.chdir(places)
        monkeypatch.setenv("HOME", str(places / "home"))
    verb, option, others, begins, expected = READERS[reader]
    for given, found in NO_FILE.items():
        line = refused(verb, f"--{option}={given}", *others)
        assert begins in line
        assert found in line, (given, line)
        assert expected in line
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, *rest, **how: Path(path).name != "text" and allowed(path, *rest, **how))
    assert "text may not be read: check its permissions" in refused(verb, f"--{option}=text", *others)


#: Those that look into the file at once; ids of users and checkpoints to resume from are read with the model or the data.
CONTENT_READERS = ["evaluate checkpoint", "recommend checkpoint", "export checkpoint", "tune params_file", "compare tune"]


@pytest.mark.parametrize("name", ["empty", "text", "binary"])
@pytest.mark.parametrize("reader", CONTENT_READERS)
def test_a_file_of_something_else_is_one_line(places, refused, reader, name, monkeypatch):
    if reader in {"recommend checkpoint", "export checkpoint"}:
        monkeypatch.undo()
        monkeypatch.chdir(places)
    verb, option, others, _, _ = READERS[reader]
    assert name in refused(verb, f"--{option}={name}", *others)


@pytest.mark.parametrize("name", ["text", "binary"])
def test_a_config_file_of_something_else_is_one_line(places, name):
    with pytest.raises(ConfigError, match=f"config file {name}"):
        load_yaml(name)
    assert load_yaml("empty") == {}


#: Folders that cannot be written, and what the line says.
NO_FOLDER = {
    "text": "text cannot be a folder: text is a file",
    "text/below/deep": "text/below/deep cannot be a folder: text is a file",
    "loop": "loop cannot be used: Too many levels of symbolic links",
    "loop/below": "cannot be used: Too many levels of symbolic links",
    "dangling": "dangling cannot be used: it is a symbolic link to nothing",
    "~nobody-of-this-name/x": "there is no user whose home folder it could mean",
    LONG: "cannot be used: File name too long",
    f"new/{LONG}": "cannot be used: File name too long",
    "": "is empty",
    # A folder that the kernel lets nobody write, root included.
    **({"/proc/none/below": "/proc/none/below cannot be written: "} if sys.platform == "linux" else {}),
}
WRITERS = {
    "compare": ("compare", "--models=BPR", "--dataset=tiny", "--seeds=1"),
    "tune": ("tune", *TRAINED),
    "coverage": ("coverage", "--dataset=tiny"),
    "export": ("export", "--checkpoint=x"),
    "prepare": ("prepare", "--source=yelp", "--meta=text", "--reviews=text", "--name=n"),
}


@pytest.mark.parametrize("verb", WRITERS)
def test_a_folder_that_cannot_be_written_is_one_line_before_any_work(refused, verb, monkeypatch):
    for given, found in NO_FOLDER.items():
        line = refused(*WRITERS[verb], f"--out={given}")
        assert found in line, (given, line)
        assert "choose a folder that can be written" in line

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(given_paths.tempfile, "TemporaryFile", read_only)
    assert "new/er cannot be written: Read-only file system" in refused(*WRITERS[verb], "--out=new/er")


def test_a_file_that_cannot_be_written_is_one_line_before_any_work(places, refused):
    options = ("--checkpoint=x", "--user=u1")
    for given in ("text", "text/below/deep", "loop", "dangling", "~nobody-of-this-name/x", f"new/{LONG}"):
        line = refused("recommend", *options, f"--out={given}/recs.csv")
        assert NO_FOLDER[given].partition(" ")[2] in line, (given, line)
    (places / "folder.csv").mkdir()
    assert "folder.csv is a folder, expected the name of a file" in refused("recommend", *options, "--out=folder.csv")


@pytest.mark.parametrize("key", ["results_dir", "log_dir", "checkpoint_dir", "artifact_dir", "data_path"])
def test_the_folders_of_a_run_are_looked_at_before_the_data(places, tiny_keys, key):
    found = {
        "": "expected a folder",
        LONG: "cannot be used: File name too long",
        "loop": "loop cannot be used: Too many levels",
    }
    for given, text in found.items():
        with pytest.raises(ConfigError, match=f"{key}: .*{text}"):
            Config("BPR", "tiny", config_dict={**tiny_keys, key: given})


@pytest.mark.parametrize("key", ["results_dir", "log_dir", "checkpoint_dir"])
def test_the_folders_that_a_run_writes_are_looked_at_before_any_is_made(places, tiny_keys, key):
    with pytest.raises(ArtifactError, match=f"{key} text/x cannot be a folder: text is a file; choose a folder"):
        prepare_run(Config("BPR", "tiny", config_dict={**tiny_keys, key: "text/x"}))
    assert not {"results", "saved", "log"} & {path.name for path in places.iterdir()}


def test_a_name_of_a_dataset_that_no_folder_can_have_is_one_line(tiny_keys):
    with pytest.raises(ConfigError, match=r"dataset: .* cannot be used: File name too long"):
        Config("BPR", LONG, config_dict=tiny_keys)


def test_spaces_letters_and_the_home_folder_are_understood(places):
    (places / "a b é" / "c d.yaml").write_text("epochs: 3\n")
    (places / "home" / "space.test").write_text("learning_rate choice [0.1, 0.2]\n")
    from recbole_hnlm.cli.common import config_files  # noqa: PLC0415 - beside its use

    assert [load_yaml(file) for file in config_files(["a b é/c d.yaml"])] == [{"epochs": 3}]
    assert config_files(["text empty", "text,missing"]) == ("text", "empty", "text", "missing")
    assert read_space_file("~/space.test").keys == ["learning_rate"]
    assert input_file("~/space.test", "it") == places / "home" / "space.test"
    assert output_folder("~/new/er", "it") == places / "home" / "new" / "er"
    assert output_folder("a b é", "it") == Path("a b é")
    assert output_file("text", "it") == Path("text")
    assert [path.name for path in Path("home").iterdir()] == ["space.test"]
