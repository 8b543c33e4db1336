"""The verbs recommend and export, and the tables that they write."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import write_tiny_dataset

from recbole_hnlm import load_data_and_model, recommend, run_recbole_hnlm
from recbole_hnlm.cli import main
from recbole_hnlm.cli.common import say
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.quick_start.recommending import Recommender
from recbole_hnlm.utils import row_files
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.row_files import inert_cell, row_writer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Path of a checkpoint of BPR on a dataset with titles, and the folder of the data."""
    folder = tmp_path_factory.mktemp("recommend")
    write_tiny_dataset(folder)
    rows = "".join(f"i{item}\t{'=cmd()' if item % 3 else 'Café, bar'}\n" for item in range(30))
    (folder / "tiny" / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows, encoding="utf-8")
    here = Path.cwd()
    os.chdir(folder)
    try:
        keys = {"data_path": str(folder), "use_gpu": False, "epochs": 2, "show_progress": False, "state": "ERROR"}
        result = run_recbole_hnlm("BPR", "tiny", None, {**keys, "topk": [5], "valid_metric": "MRR@5"})
    finally:
        os.chdir(here)
    return folder / result["checkpoint"], folder


@pytest.fixture
def call(trained, workdir, capsys):
    """Run a verb on the checkpoint; returns the exit code, standard output, and the last line of standard error."""

    def run(verb, *argv):
        code = main([verb, f"--checkpoint={trained[0]}", f"--data_path={trained[1]}", "--use_gpu=False", *argv])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()[-1] if err else ""

    return run


@pytest.fixture
def wanted(trained):
    """Recommendations of the Python API for u3 and u5."""
    return recommend(trained[0], ["u3", "u5"], 4, config_dict={"data_path": str(trained[1]), "use_gpu": False})


def test_recommendations_are_printed_as_tab_separated_lines(call, wanted):
    code, out, _ = call("recommend", "--user=u3", "--user=u5", "--topk=4")
    head, *lines = out.splitlines()
    assert (code, head) == (0, "user_id\trank\titem_id\tscore\ttitle")
    rows = [line.split("\t") for line in lines]
    assert [row[:3] for row in rows] == wanted[["user_id", "rank", "item_id"]].astype(str).to_numpy().tolist()
    assert [float(row[3]) for row in rows] == pytest.approx(wanted["score"].tolist(), rel=1e-5)
    assert {row[4] for row in rows} <= {"=cmd()", "Café, bar"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_recommendations_are_written_in_every_format(call, wanted, workdir, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    (workdir / "users.txt").write_bytes(b"\xef\xbb\xbfu3\r\n\n   \nu5")
    code, out, _ = call("recommend", "--users=users.txt", "--topk=4", f"--out=deep/recs.{suffix}")
    assert (code, out) == (0, f"recommendations: deep/recs.{suffix} (8 for 2 users)\n")
    rows = _read(workdir / "deep" / f"recs.{suffix}")
    assert list(rows[0]) == ["user_id", "rank", "item_id", "score", "title"]
    for name in ("user_id", "item_id"):
        assert [row[name] for row in rows] == wanted[name].tolist()
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4] * 2
    assert [float(row["score"]) for row in rows] == pytest.approx(wanted["score"].tolist(), abs=1e-6)
    titles = wanted["title"].tolist()
    assert {"=cmd()", "Café, bar"} == set(titles)
    assert [row["title"] for row in rows] == [title.replace("=", "'=") if suffix == "csv" else title for title in titles]
    assert [file.name for file in (workdir / "deep").iterdir()] == [f"recs.{suffix}"]


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar_is_shown_only_where_it_is_wanted(call, workdir, shown):
    _, _, err = call("recommend", "--all", "--topk=4", "--out=recs.csv", f"--show_progress={shown}")
    assert ("recommendations:" in err) is shown


def _read(file):
    if file.suffix == ".parquet":
        import pyarrow.parquet  # noqa: PLC0415 - an extra

        return pyarrow.parquet.read_table(file).to_pylist()
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines)) if file.suffix == ".csv" else [json.loads(line) for line in lines]


def test_all_users_and_what_is_left_of_the_items(call, trained):
    code, out, _ = call("recommend", "--all", "--topk=30", "--out=recs.jsonl")
    loaded = load_data_and_model(trained[0], {"data_path": str(trained[1])})
    rows = 41 * 30 - len(TrainingInteractions.from_dataset(loaded.train_data._dataset))
    assert code == 0
    assert out == f"recommendations: recs.jsonl ({rows:,} for 41 users, fewer than 30 where no more items are left)\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--user=u3", "--user=zz", "--user=yy"], "error: 2 of 3 users are not in dataset tiny .*: 'zz', 'yy'; give ids"),
        (["--users=no.txt"], "error: --users: file no.txt does not exist"),
        (["--users=empty.txt"], "error: --users: file empty.txt names no user"),
        (["--users=latin.txt"], "error: --users: file latin.txt is not UTF-8 text"),
        (["--users=."], "error: --users: file . is a folder, not a file"),
        (["--all", "--topk=0"], "error: --topk is 0, expected 1 or more"),
        (["--all", "--topk=31"], "error: topk is 31, expected a whole number from 1 to 30"),
        (["--all", "--out=recs.xlsx"], r"error: recs\.xlsx ends in \.xlsx: expected one of \.csv, \.jsonl, \.parquet"),
        (["--all", "--out=recs"], "error: recs ends in no suffix"),
        (["--all", "--out=folder.csv"], r"error: the table folder\.csv is a folder"),
        (["--all", "--out=empty.txt/recs.csv"], "error: the table empty.txt cannot be a folder: empty.txt is a file"),
        (["--all", "--resume=x.pth"], "error: resume"),
        (["--all", "--nonsense=1"], "error: unknown key nonsense"),
        (["--all", "--model=no_such_module:Class"], "error: .*no_such_module"),
    ],
)
def test_what_the_user_can_fix_is_one_line(call, workdir, argv, message):
    (workdir / "empty.txt").write_text("\n \n")
    (workdir / "latin.txt").write_bytes(b"u\xe9\n")
    (workdir / "folder.csv").mkdir()
    code, out, error = call("recommend", *argv)
    assert (code, out) == (2, "")
    assert re.match(message, error), error
    assert not list(workdir.glob("recs*"))


def test_someone_to_recommend_to_must_be_named_once(call, capsys):
    for argv in ([], ["--all", "--user=u3"]):
        with pytest.raises(SystemExit) as left:
            call("recommend", *argv)
        assert left.value.code == 2
        assert re.search("one of the arguments|not allowed with", capsys.readouterr().err)


@pytest.mark.parametrize("verb", ["recommend", "export"])
def test_parquet_without_its_package_is_refused_before_any_work(call, monkeypatch, verb):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("recbole_hnlm.quick_start.loaded.load_checkpoint", lambda *_, **__: pytest.fail("loaded"))
    argv = {"recommend": ["--all", "--out=recs.parquet"], "export": ["--out=out", "--ids=parquet"]}
    code, _, error = call(verb, *argv[verb])
    assert code == 2
    assert re.match(r'error: Parquet needs the package pyarrow .*pip install "recbole-hnlm\[parquet\]", or write \.csv', error)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_file_that_is_not_finished_leaves_the_earlier_one(call, workdir, monkeypatch, raised):
    (workdir / "recs.csv").write_text("earlier\n")
    rows = Recommender._columns_of

    def failing(self, users, k):
        if 20 in users:
            raise raised
        return rows(self, users, k)

    monkeypatch.setattr(Recommender, "_columns_of", failing)
    code, _, _ = call("recommend", "--all", "--out=recs.csv", "--eval_users_per_batch=8")
    assert code in {2, 130}
    assert (workdir / "recs.csv").read_text() == "earlier\n"
    assert [file.name for file in workdir.glob("recs*")] == ["recs.csv"]


def test_export_writes_vectors_and_ids_and_says_so(call, workdir):
    code, out, _ = call("export", "--out=vectors", "--ids=jsonl")
    assert (code, out) == (0, "embeddings: vectors (41 users, 30 items, dimension 64)\n")
    assert len((workdir / "vectors" / "users.jsonl").read_text().splitlines()) == 41


def test_export_refuses_a_folder_with_something_else(call, workdir):
    (workdir / "mine").mkdir()
    (workdir / "mine" / "notes.txt").write_text("mine")
    code, out, error = call("export", "--out=mine")
    assert (code, out) == (2, "")
    assert error.startswith("error: mine holds something that is no earlier export, which would be replaced: choose a new")


def test_who_stops_reading_ends_the_program_quietly(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as left:
            say("a line")
    assert left.value.code == 141


# --- tables -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-12", "-12"),
        ("+1.5e-3", "+1.5e-3"),
        ("a=1", "a=1"),
        ("", ""),
        ("-12\n", "'-12\n"),
    ],
)
def test_formulas_are_made_inert_and_numbers_stay(text, cell):
    assert inert_cell(text) == cell


def test_csv_quotes_what_would_break_a_row(tmp_path):
    texts = ['a "b", c', "line\nend", "semi;colon", "\u2028", "=x"]
    with row_writer(tmp_path / "a.csv", {"n": int, "text": str}) as append:
        append({"n": range(len(texts)), "text": texts})
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["text"] for row in csv.DictReader(lines)] == [*texts[:-1], "'=x"]


def test_parquet_holds_a_group_of_rows_at_a_time(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(row_files, "_GROUP_ROWS", 10)
    with row_writer(tmp_path / "a.parquet", {"n": int, "x": float, "text": str}) as append:
        for start in range(0, 48, 4):
            append({"n": range(start, start + 4), "x": [0.5] * 4, "text": ["=x"] * 4})
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [12, 12, 12, 12]
    assert file.read().to_pylist()[47] == {"n": 47, "x": 0.5, "text": "=x"}


def test_a_table_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), row_writer(tmp_path / "a.jsonl", {"n": int}) as append:
        append({"m": [1]})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="expected one of"), row_writer(tmp_path / "a.tsv", {"n": int}):
        pass
    with pytest.raises(ArtifactError, match="cannot be written"), row_writer("/proc/none/a.csv", {"n": int}):
        pass
