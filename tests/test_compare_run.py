"""The verb ``compare``: its plan, its processes, and a small comparison from end to end."""

import json
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tune_kit import plan_of

from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.evaluator.per_user import is_per_user
from recbole_hnlm.experiments import cells, jobs, tune_jobs
from recbole_hnlm.experiments.cells import Cell
from recbole_hnlm.experiments.grid import edge_note, parse_grid, point_text, points_of
from recbole_hnlm.experiments.methods import Method, parse_seeds, resolve_methods
from recbole_hnlm.experiments.plan import PlanRequest, make_plan
from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import Outcome
from recbole_hnlm.experiments.store import is_finished, of_other_code, read_cell, write_cell
from recbole_hnlm.experiments.tune import SearchOptions
from recbole_hnlm.experiments.tune_loop import work
from recbole_hnlm.experiments.tuning import choice_of, plan_rows
from recbole_hnlm.experiments.worker import run_cell
from recbole_hnlm.finetune.teacher import TEACHER_ROOMS
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.utils import environment
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

# --- the split -------------------------------------------------------------------------------------------------------------


def _fingerprint(keys, **changed):
    data = load_data(Config("BPR", "tiny", config_dict={**keys, **changed}))
    return TrainingInteractions.from_dataset(data.train._dataset).split_fingerprint


def test_split_seed_alone_decides_the_split(workdir, tiny_keys):
    fixed = {_fingerprint(tiny_keys, seed=seed, split_seed=5) for seed in (1, 2)}
    assert fixed == {_fingerprint(tiny_keys, seed=5)}
    assert len({_fingerprint(tiny_keys, seed=seed) for seed in (1, 2, 5)}) == 3


def test_runs_of_one_split_differ_in_their_training(workdir, tiny_keys):
    one, two = (run(Config("BPR", "tiny", config_dict={**tiny_keys, "seed": seed, "split_seed": 5})) for seed in (1, 2))
    assert one.record["split_fingerprint"] == two.record["split_fingerprint"]
    assert one.record["train_loss"] != two.record["train_loss"]
    assert len(one.record["epoch_seconds"]) == 1


# --- the plan --------------------------------------------------------------------------------------------------------------


def test_seeds_are_a_number_or_a_list():
    assert parse_seeds("3", 2020) == [2020, 2021, 2022]
    assert parse_seeds("7, 3", 2020) == [7, 3]
    assert parse_seeds("7,", 2020) == [7]


@pytest.mark.parametrize("text", ["0", "", "x", "-1", "1,1", "1.5", "10001", "99999999999", "9" * 5000, "1,4294967296"])
def test_seeds_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError, match="seeds: "):
        parse_seeds(text, 1)


def test_plain_names_are_the_backbone_without_an_llm():
    methods = resolve_methods(["LightGCN", "HNLMLightGCN", "SimGCL", "Pop"], ["uniform", "dns"])
    assert [(method.label, method.runs) for method in methods] == [
        ("LightGCN + uniform", "HNLMLightGCN"),
        ("LightGCN + dns", "HNLMLightGCN"),
        ("HNLMLightGCN + uniform", "HNLMLightGCN"),
        ("HNLMLightGCN + dns", "HNLMLightGCN"),
        ("SimGCL + uniform", "HNLMSimGCL"),
        ("SimGCL + dns", "HNLMSimGCL"),
        ("Pop", "Pop"),
    ]
    assert (methods[1].keys["negative_route"], "negative_route" in methods[3].keys) == ("none", False)


def test_an_entry_can_have_samplers_of_its_own():
    methods = resolve_methods(["LightGCN:ahns:uniform", "HNLMBPR", "HNLMNGCF:dns"], ["mixgcf"])
    assert [method.label for method in methods] == [
        "LightGCN + ahns",
        "LightGCN + uniform",
        "HNLMBPR + mixgcf",
        "HNLMNGCF + dns",
    ]


@pytest.mark.parametrize(
    ("models", "samplers", "message"),
    [
        (["BPR:dsn"], ["dns"], "models: there is no dsn"),
        (["BPR:"], ["dns"], "models: there is no ''"),
        (["BPR:dns:dns"], ["dns"], "models: BPR: dns is given twice"),
        (["Pop:dns"], ["dns"], "Pop takes none of our"),
        (["BPR", "BPR:uniform"], ["dns"], "BPR is given twice"),
        (["BPR"], ["dsn"], "there is no dsn; the nearest valid one is dns"),
        (["BRP"], ["dns"], "no model is named 'BRP'"),
        (["BPR", "BPR"], ["dns"], "BPR is given twice"),
        ([], ["dns"], "models: expected one or more"),
    ],
)
def test_wrong_names_are_refused(models, samplers, message):
    with pytest.raises(ConfigError, match=message):
        resolve_methods(models, samplers)


def _plan(tiny_keys, *argv, models=("BPR", "HNLMBPR"), samplers=("dns",), seeds="2", vary_split=False):
    given = [f"--{key}={value}" for key, value in tiny_keys.items()]
    return make_plan(PlanRequest(models, samplers, seeds, vary_split, "tiny", (), (*given, *argv)))


def test_every_cell_has_its_own_id_and_the_same_split(workdir, tiny_keys):
    cells = _plan(tiny_keys, models=("BPR", "HNLMBPR", "Pop"), samplers=("uniform", "dns"))
    assert len({cell.id for cell in cells}) == len(cells) == 10
    assert {(cell.seed, cell.split_seed) for cell in cells} == {(2020, 2020), (2021, 2020)}
    assert [cell.split_seed for cell in _plan(tiny_keys, vary_split=True)[:2]] == [2020, 2021]
    assert {cell.split_seed for cell in _plan(tiny_keys, "--split_seed=9", seeds="4,5")} == {9}
    assert {cell.split_seed for cell in _plan(tiny_keys, seeds="4,5")} == {4}
    assert [cell.seed for cell in _plan(tiny_keys, "--seed=7")[:2]] == [7, 8]


def test_a_plain_cell_reads_nothing_of_an_llm(workdir, tiny_keys):
    plain, hnlm = _plan(tiny_keys, "--negative_route=finetuned", "--semantic_candidates=2", seeds="1")
    settings = [Config(cell.method.runs, cell.dataset, None, cell.keys).settings for cell in (plain, hnlm)]
    assert [each.uses_semantics for each in settings] == [False, True]
    assert {each.negative_sampler for each in settings} == {"dns"}


def test_a_row_is_a_baseline_by_what_it_reads_and_not_by_its_name(workdir, tiny_keys):
    def roles(*argv, models=("BPR", "HNLMBPR", "RLMRecConLightGCN", "Pop"), samplers=("dns",)):
        return {cell.method.label: cell.method.role for cell in _plan(tiny_keys, *argv, models=models, samplers=samplers)}

    usual = {"BPR + dns": "baseline", "HNLMBPR + dns": "hnlm", "RLMRecConLightGCN + dns": "rival", "Pop": "baseline"}
    assert roles() == usual
    assert roles("--HNLMBPR.negative_route=none") == usual  # it still aligns with texts
    bare = ("--HNLMBPR.negative_route=none", "--HNLMBPR.alignment_weight=0")
    assert roles(*bare) == {**usual, "HNLMBPR + dns": "baseline"}
    # A backbone that ranks by texts, or whose sampler reads them, is no baseline.
    assert roles("--text_score=mean", models=("BPR", "Pop")) == {"BPR + dns": "rival", "Pop": "rival"}
    assert roles(models=("BPR",), samplers=("semantic_guard",)) == {"BPR + semantic_guard": "rival"}


def test_ids_follow_what_a_result_depends_on(workdir, tiny_keys):
    def ids(*argv, models=("BPR", "HNLMBPR", "Pop")):
        return {cell.method.label: cell.id for cell in _plan(tiny_keys, *argv, models=models, seeds="1")}

    before = ids()
    assert ids() == before
    assert ids("--artifact_dir=elsewhere", "--worker=1") == before
    assert not set(ids("--learning_rate=0.5").values()) & set(before.values())

    def changed(*argv):
        return {label for label, identity in ids(*argv).items() if identity != before[label]}

    assert changed("--mix_weight=0.5", "--llm_seed=3") == {"HNLMBPR + dns"}
    assert changed("--num_candidates=4") == {"BPR + dns", "HNLMBPR + dns"}
    assert changed("--BPR.embedding_size=8") == {"BPR + dns"}
    assert changed("--split_seed=1") == set(before)
    assert changed(
        "--llm_timeout=9", "--llm_concurrency=2", "--llm_backend=openai", "--llm_model=m", "--llm_base_url=http://x"
    ) == {"HNLMBPR + dns"}
    assert changed("--finetune_steps=5", "--negative_route=finetuned") == {"HNLMBPR + dns"}
    tuned = [
        ids("--negative_route=finetuned", f"--finetune_{key}")["HNLMBPR + dns"] for key in ("steps=5", "steps=6", "layers=2")
    ]
    assert len(set(tuned)) == 3


# --- keys that rows share ----------------------------------------------------------------------------------------------------


def test_a_shared_key_is_for_some_row_and_no_row_needs_to_read_all(workdir, tiny_keys):
    models = ("BPR", "HNLMBPR", "Pop")
    assert len(_plan(tiny_keys, "--mix_weight=0.5", "--ahns_beta=3", models=models, samplers=("dns", "ahns"), seeds="1")) == 5
    assert len(_plan(tiny_keys, "--HNLMBPR.ahns_beta=3", models=models, samplers=("dns", "ahns"), seeds="1")) == 5
    with pytest.raises(ConfigError, match="ahns_beta has no effect here: it is read with negative_sampler ahns"):
        _plan(tiny_keys, "--ahns_beta=3", models=models)
    with pytest.raises(ConfigError, match="mix_weight has no effect on Pop"):
        _plan(tiny_keys, "--Pop.mix_weight=0.5", models=models)


def test_a_row_is_tuned_once_over_points_that_differ_in_keys_it_does_not_read(workdir, tiny_keys):
    given = tuple(f"--{key}={value}" for key, value in tiny_keys.items())
    request = PlanRequest(("BPR",), ("dns", "ahns"), "1", False, "tiny", (), given, ("ahns_beta=1,2",))
    rows = plan_rows(workdir, request, _EXHAUSTIVE)
    # One point is chosen at once, without a search.
    assert (rows["BPR + dns"].point, rows["BPR + dns"].plan) == ({"ahns_beta": "1"}, None)
    assert len(rows["BPR + ahns"].plan.points) == 2


# --- the code in identities --------------------------------------------------------------------------------------------------


def test_every_room_is_part_of_a_cells_identity_or_known_to_change_no_number():
    package = Path(cells.__file__).parent.parent
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    counted = {*cells.TRAINING_ROOMS, *cells.SEMANTIC_ROOMS}
    assert counted <= rooms
    assert rooms - counted <= {"cli", "cost", "experiments", "prepare", "testing"}
    assert all((package / room).exists() for room in TEACHER_ROOMS)


def test_the_digest_of_the_source_follows_the_rooms_that_are_named(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "utils").mkdir()
    (tmp_path / "model" / "a.py").write_text("a = 1\n")
    (tmp_path / "utils" / "b.py").write_text("b = 1\n")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "utils" / "environment.py"))

    def digests():
        environment.source_digest.cache_clear()
        return [environment.source_digest(rooms) for rooms in (None, ("model",), ("utils/b.py",))]

    before = digests()
    (tmp_path / "utils" / "b.py").write_text("b = 2\n")
    after = digests()
    environment.source_digest.cache_clear()
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]


def test_a_cell_of_another_state_of_the_code_is_named_and_not_reused(workdir, tiny_keys, monkeypatch):
    old = _plan(tiny_keys, models=("BPR",), seeds="1")[0]
    write_cell(workdir, old.id, {}, np.array(["u1"]), {"ndcg@5": np.array([0.5], dtype=np.float32)})
    monkeypatch.setattr(cells, "source_digest", lambda rooms: "0" * 12)
    new = _plan(tiny_keys, models=("BPR",), seeds="1")[0]
    assert (new.code, new.id) == ("0" * 12, f"{old.id.removesuffix(old.code)}{'0' * 12}")
    assert not is_finished(workdir, new)
    assert of_other_code(workdir, [new]) == [old.id]
    assert of_other_code(workdir, [old]) == []
    with pytest.raises(ArtifactError, match="the code was changed while the comparison ran"):
        run_cell(workdir, old)


@pytest.mark.parametrize(
    ("argv", "options", "message"),
    [
        (["--n_layers=2"], {}, r"BPR \+ dns: unknown key n_layers.*--BPR.KEY=VALUE"),
        (["--NGCF.n_layers=2"], {}, "NGCF is not one of the models BPR, HNLMBPR"),
        (["--negative_sampler=dns"], {}, "leave out --negative_sampler"),
        (["--seed=1"], {"seeds": "1,2"}, "leave out --seed"),
        (["--split_seed=1"], {"vary_split": True}, "leave out split_seed=1"),
        (["--metrics=[MRR,GAUC]"], {"valid": "GAUC"}, "GAUC: compare needs a ranking metric"),
    ],
)
def test_wrong_keys_are_one_error_before_any_work(workdir, tiny_keys, argv, options, message):
    keys = {**tiny_keys, "valid_metric": options.pop("valid", tiny_keys["valid_metric"])}
    with pytest.raises(ConfigError, match=message):
        _plan(keys, *argv, **options)


def test_which_metrics_have_a_value_per_user():
    names = ("NDCG", "recall", "MRR", "Hit", "MAP", "GAUC", "AUC", "ItemCoverage", "AveragePopularity", "nothing")
    assert [name for name in names if is_per_user(name)] == ["NDCG", "recall", "MRR", "Hit", "MAP"]


def test_a_cell_survives_the_way_to_another_process(workdir, tiny_keys):
    cell = _plan(tiny_keys)[1]
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


# --- processes -------------------------------------------------------------------------------------------------------------

FAKE_WORKER = """
import json, os, pathlib, signal, sys
folder, cell = pathlib.Path(sys.argv[1]), json.loads(sys.stdin.readline())
(folder / f"{cell['id']}.threads").write_text(os.environ["OMP_NUM_THREADS"])
if cell["seed"] == 2:
    print("some log"); print("error: no luck", file=sys.stderr); sys.exit(2)
if cell["seed"] == 3:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _cells(*seeds):
    return [Cell(f"c{seed}", Method("A", None, "A"), seed, 1, {}, "tiny", ()) for seed in seeds]


@pytest.fixture
def fake_worker(workdir, monkeypatch):
    (workdir / "fake.py").write_text(FAKE_WORKER)
    monkeypatch.setattr(jobs, "_WORKER", (sys.executable, str(workdir / "fake.py")))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(jobs, "available_cores", lambda: 6)
    return workdir


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_failing_cell_takes_no_other_with_it(fake_worker, at_once):
    failures = jobs.run_cells(fake_worker, _cells(1, 2, 3, 4), at_once)
    assert failures == {"c2": "no luck", "c3": "killed by signal 9 (last output: no output)"}
    assert {path.name: path.read_text() for path in fake_worker.glob("*.threads")} == {
        f"c{seed}.threads": str(6 // at_once) for seed in (1, 2, 3, 4)
    }
    assert "some log" in (fake_worker / "log" / "c2.txt").read_text()
    assert not (fake_worker / "log" / "c1.txt").exists()


def test_an_interruption_ends_the_cells_under_way(fake_worker, monkeypatch):
    (fake_worker / "fake.py").write_text("import time; time.sleep(60)")
    started = []
    monkeypatch.setattr(jobs, "_start", lambda *args, start=jobs._start: started.append(start(*args)) or started[-1])

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "time", types.SimpleNamespace(sleep=interrupt))
    with pytest.raises(KeyboardInterrupt):
        jobs.run_cells(fake_worker, _cells(1, 2, 3), 2)
    assert len(started) == 2
    assert all(job.process.returncode is not None for job in started)


WAITING_WORKER = """
import pathlib, sys, time
from recbole_hnlm.experiments import worker
def wait(folder, cell, at_once):
    (folder / "began").write_text("")
    time.sleep(60)
worker.run_cell = wait
sys.exit(worker.main(sys.argv[1:]))
"""


def test_a_worker_ends_when_its_parent_is_killed(workdir):
    script = workdir / "waiting.py"
    script.write_text(WAITING_WORKER)
    with subprocess.Popen([sys.executable, str(script), str(workdir), "1"], stdin=subprocess.PIPE) as process:
        process.stdin.write(json.dumps(_cells(1)[0].to_json()).encode() + b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 100
        while not (workdir / "began").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
        process.stdin.close()  # what the kernel does when the parent dies, by SIGKILL too
        assert process.wait(10) == -signal.SIGTERM


def test_threads_are_shared_out_and_a_smaller_wish_is_kept():
    assert jobs.worker_environment(3, 8, {})["OMP_NUM_THREADS"] == "2"
    assert jobs.worker_environment(16, 8, {})["OMP_NUM_THREADS"] == "1"
    assert jobs.worker_environment(1, 8, {"OMP_NUM_THREADS": "3", "A": "b"}) == {"OMP_NUM_THREADS": "3", "A": "b"}
    assert jobs.worker_environment(4, 8, {"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "2"


def test_shares_are_disjoint_and_complete():
    cells = _cells(*range(7))
    parts = [jobs.share_of(cells, f"{part}/3") for part in (1, 2, 3)]
    assert sorted(cell.seed for part in parts for cell in part) == list(range(7))
    assert jobs.share_of(cells, None) == cells
    for wrong in ("0/3", "4/3", "x", "1/0"):
        with pytest.raises(ConfigError, match="only: expected a share"):
            jobs.share_of(cells, wrong)


# --- files of a cell -------------------------------------------------------------------------------------------------------


def test_a_cell_is_finished_when_both_files_are_there_and_readable(workdir):
    cell = _cells(1)[0]
    write_cell(workdir, cell.id, {"version": "1"}, np.array(["u1", "u2"]), {"ndcg@5": np.array([0.5, 1.0], dtype=np.float32)})
    assert is_finished(workdir, cell)
    again = read_cell(workdir, cell)
    assert (again.users.tolist(), again.values["ndcg@5"].tolist()) == (["u1", "u2"], [0.5, 1.0])
    (workdir / "cells" / "c1.npz").unlink()
    assert not is_finished(workdir, cell)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda cells: shutil.copy(cells / "c2.npz", cells / "c1.npz"),
        lambda cells: shutil.copy(cells / "c2.json", cells / "c1.json"),
        lambda cells: (cells / "c1.npz").write_bytes(b"PK broken"),
        lambda cells: (cells / "c1.json").write_text("[1]"),
        lambda cells: (cells / "c1.json").write_text("{}"),
        lambda cells: _flip(cells / "c1.npz"),
        lambda cells: (cells / "c1.json").write_text((cells / "c1.json").read_text().replace("0.5", "0.9")),
    ],
)
def test_damaged_files_and_those_of_another_cell_are_set_aside_with_one_line(workdir, caplog, damage):
    one, two = _cells(1, 2)
    for cell, value in ((one, 0.5), (two, 0.75)):
        values = {"ndcg@5": np.array([value, 1.0], dtype=np.float32)}
        write_cell(workdir, cell.id, {"best_valid_score": 0.5}, np.array(["u1", "u2"]), values)
    damage(workdir / "cells")
    with pytest.raises(ArtifactError, match=r"cell c1 in .*cells cannot be used: .*it runs again") as caught:
        read_cell(workdir, one)
    assert "\n" not in str(caught.value)
    assert (is_finished(workdir, one), is_finished(workdir, one), is_finished(workdir, two)) == (False, False, True)
    assert caplog.text.count("cannot be used") == 1
    assert sorted(path.name for path in (workdir / "cells").glob("c1*")) == ["c1.json.damaged", "c1.npz.damaged"]


def _stopped_cell(folder, keys, identity):
    """Train a cell until it is killed after its second epoch; returns it."""
    cell = Cell(identity, Method("BPR", None, "BPR"), keys["seed"], 3, keys, "tiny", ())

    def stop(epoch, score):
        if epoch == 1:
            raise KeyboardInterrupt

    stopped = {**keys, "checkpoint_dir": str(folder / "checkpoints" / identity)}
    with pytest.raises(KeyboardInterrupt):
        run(Config("BPR", "tiny", config_dict=stopped), run_id=identity, callback_fn=stop)
    return cell


def test_a_cell_whose_checkpoints_are_damaged_or_anothers_is_trained_from_the_start(workdir, tiny_keys, caplog):
    keys = {**tiny_keys, "epochs": 3, "seed": 3, "split_seed": 3}
    expected = run(Config("BPR", "tiny", config_dict=keys)).record
    one, two = _stopped_cell(workdir, keys, "c1"), _stopped_cell(workdir, {**keys, "seed": 4}, "c2")
    own, others = (workdir / "checkpoints" / cell.id for cell in (one, two))
    whole = {file.name: file.read_bytes() for file in own.iterdir()}
    assert sorted(whole) == ["c1.last.pth", "c1.pth"]

    def half(file):
        file.write_bytes(file.read_bytes()[: len(whole[file.name]) // 2])

    def anothers(file):
        shutil.copy(others / file.name.replace("c1", "c2"), file)

    cases = [([name], damage) for name in whole for damage in (_flip, half, Path.unlink, anothers)]
    for names, damage in [*cases, (list(whole), anothers)]:
        own.mkdir(exist_ok=True)
        for name, content in whole.items():
            (own / name).write_bytes(content)
        for name in names:
            damage(own / name)
        caplog.clear()
        run_cell(workdir, one)
        done = read_cell(workdir, one).record
        assert len(done["epoch_seconds"]) == 3
        assert (done["train_loss"], done["test_result"]) == (expected["train_loss"], expected["test_result"])
        assert caplog.text.count("the cell is trained from the start: checkpoint ") == (damage is not Path.unlink)


def test_a_cell_keeps_each_users_metrics_and_goes_on_where_it_was_killed(workdir, tiny_keys):
    keys = {**tiny_keys, "epochs": 3, "seed": 3, "split_seed": 3}
    folder = workdir / "out"
    cell = _stopped_cell(folder, keys, "BPR-s3-x")
    run_cell(folder, cell)
    done = read_cell(folder, cell)
    assert (done.record["epochs"], len(done.record["epoch_seconds"])) == (3, 1)
    assert done.record["train_loss"] == run(Config("BPR", "tiny", config_dict=keys)).record["train_loss"]
    assert list(done.values) == ["mrr@5", "ndcg@5", "recall@5"]
    for name, values in done.values.items():
        assert round(float(values.mean(dtype=np.float64)), 4) == pytest.approx(done.record["test_result"][name], abs=1.01e-4)
    # One relevant item each: a user's recall is 0 or 1, and MRR is above 0 exactly where it is 1.
    assert set(done.values["recall@5"].tolist()) == {0.0, 1.0}
    assert np.array_equal(done.values["mrr@5"] > 0, done.values["recall@5"] > 0)
    assert set(done.users.tolist()) <= {f"u{user}" for user in range(41)}
    assert not (folder / "checkpoints" / cell.id).exists()


def test_a_comparison_from_end_to_end(workdir, tiny_keys, capsys, monkeypatch):
    keys = {**tiny_keys, "valid_metric": "NDCG@5"}
    given = [f"--{key}={value}" for key, value in keys.items()]
    command = ["compare", "--dataset=tiny", "--models=BPR,Pop", "--negative_samplers=dns", "--seeds=1", "--out=out", *given]
    assert main([*command, "--jobs=2"]) == 0
    said = capsys.readouterr().out
    assert "one row each: Pop" in said
    assert "2 cells in all, 2 in this share, 0 reused, 2 to run" in said
    results = json.loads((workdir / "out" / "results.json").read_text())
    assert (results["missing"], results["failures"]) == ([], {})
    rows = results["table"]["rows"]["ndcg@5"]
    assert [row["label"] for row in rows] == ["BPR + dns", "Pop"]
    record = json.loads((workdir / "out" / "cells" / f"{results['cells'][0]}.json").read_text())
    assert rows[0]["mean"] == pytest.approx(record["test_result"]["ndcg@5"], abs=1e-4)
    assert record["config"]["negative_route"] == "none"
    assert all((workdir / "out" / f"table.{kind}").stat().st_size for kind in ("md", "csv", "tex", "png"))
    assert "With one seed" in (workdir / "out" / "table.md").read_text()

    # Again: nothing is started. Without one of its files: that cell alone.
    def refuse(*args):
        raise AssertionError(args)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        assert main([*command, "--report"]) == 0
    assert "2 reused, 0 to run" in (said := capsys.readouterr().out)
    assert "report: out/report.html (" in said
    page = (workdir / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{rows[0]['mean']:.4f}" in page
    assert "recbole-hnlm compare --dataset=tiny --models=BPR,Pop" in page
    (workdir / "out" / "cells" / f"{results['cells'][1]}.npz").unlink()
    monkeypatch.setattr(jobs, "_WORKER", (sys.executable, "-c", "import sys; sys.exit('error: no luck')"))
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "1 reused, 1 to run" in shown.out
    assert f"{results['cells'][1]}: no luck" in shown.err
    kept = json.loads((workdir / "out" / "results.json").read_text())
    assert (kept["missing"], kept["failures"]) == ([results["cells"][1]], {results["cells"][1]: "no luck"})
    assert "1 of 2 cells are missing" in (workdir / "out" / "table.md").read_text()


def test_what_is_wrong_with_the_command_is_one_line_and_exit_code_2(workdir, capsys):
    assert main(["compare", "--models=BPR", "--dataset=ml-100k", "--out=out", "--jobs=0"]) == 2
    assert capsys.readouterr().err == "error: jobs: expected at least 1, got 0\n"


# --- the grid --------------------------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_of_the_keys_that_concern_a_row():
    grid = parse_grid(
        ["learning_rate=0.1,0.2", "dns.sample_size=2,3", "BPR.learning_rate=1"], ["BPR", "LightGCN"], ["dns", "uniform"]
    )
    methods = {method.label: method for method in resolve_methods(["BPR", "LightGCN"], ["uniform", "dns"])}
    points = {label: [point_text(point) for point in points_of(grid, method)] for label, method in methods.items()}
    assert points == {
        "BPR + uniform": ["learning_rate=1"],
        "BPR + dns": ["learning_rate=1, sample_size=2", "learning_rate=1, sample_size=3"],
        "LightGCN + uniform": ["learning_rate=0.1", "learning_rate=0.2"],
        "LightGCN + dns": [f"learning_rate={rate}, sample_size={size}" for rate in (0.1, 0.2) for size in (2, 3)],
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["learning_rate"], "grid: expected KEY=V1,V2"),
        (["learning_rate="], "grid: expected KEY=V1,V2"),
        (["layers=[1,2]"], "grid: expected KEY=V1,V2"),
        (["SGL.learning_rate=1,2"], "grid: SGL in .* is not one of BPR, dns"),
        (["learning_rate=1,1"], "names a value twice"),
        (["learning_rate=1,2", "learning_rate=3"], "learning_rate is given twice"),
    ],
)
def test_grids_that_make_no_sense_are_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_grid(texts, ["BPR"], ["dns"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat=0.1,0.2", "learning_rat"),
        ("learning_rate=0.1,-2", "learning_rate"),
        ("seed=1,2", "grid: seed is not a key that can be tuned"),
        ("epochs=1,2", "grid: epochs is also given as a separate key"),
    ],
)
def test_a_wrong_point_is_an_error_before_any_work(workdir, tiny_keys, text, message):
    given = tuple(f"--{key}={value}" for key, value in tiny_keys.items())
    with pytest.raises(ConfigError, match=message):
        plan_rows(workdir, PlanRequest(("BPR",), ("dns",), "2", False, "tiny", (), given, (text,)), _EXHAUSTIVE)


_EXHAUSTIVE = SearchOptions(None, "exhaustive", "none")


def test_other_settings_are_another_search(workdir, tiny_keys):
    given = tuple(f"--{key}={value}" for key, value in tiny_keys.items())
    request = PlanRequest(("BPR",), ("dns",), "2", False, "tiny", (), given, ("reg_weight=0.1,0.2",))
    changed = replace(request, argv=(*given, "--embedding_size=8"))
    assert len({plan_rows(workdir, each, _EXHAUSTIVE)["BPR + dns"].plan.folder for each in (request, changed, request)}) == 2


def test_a_row_is_tuned_over_the_keys_that_it_reads(workdir, tiny_keys):
    given = tuple(f"--{key}={value}" for key, value in tiny_keys.items())
    request = PlanRequest(("BPR", "HNLMBPR", "NeuMF"), ("uniform", "dns"), "2", False, "tiny", (), given, tune="shipped")
    rows = plan_rows(workdir, request, SearchOptions(7))
    keys = {label: row.plan.space.keys for label, row in rows.items()}
    assert keys["BPR + uniform"] == ["learning_rate", "embedding_size"]
    assert keys["NeuMF"] == ["learning_rate", "dropout_prob", "mlp_hidden_size"]
    assert {*keys["HNLMBPR + dns"]} - {*keys["HNLMBPR + uniform"]} == {"num_candidates"}
    assert {row.plan.trials for row in rows.values()} == {7}
    (workdir / "mine.test").write_text("learning_rate choice [1]\nNeuMF.learning_rate choice [2]\ndns.reg_weight choice [3]\n")
    rows = plan_rows(workdir, replace(request, tune="mine.test"), SearchOptions(7))
    assert {label: row.plan.space.to_lines() for label, row in rows.items()} == {
        "BPR + uniform": ["learning_rate choice [1]"],
        "BPR + dns": ["learning_rate choice [1]", "reg_weight choice [3]"],
        "HNLMBPR + uniform": ["learning_rate choice [1]"],
        "HNLMBPR + dns": ["learning_rate choice [1]", "reg_weight choice [3]"],
        "NeuMF": ["learning_rate choice [2]"],
    }
    with pytest.raises(ConfigError, match=r"--learning_rate is given, and mine.test tunes it"):
        plan_rows(workdir, replace(request, tune="mine.test", argv=(*given, "--learning_rate=1")), SearchOptions(7))


def test_the_highest_score_is_chosen_and_nothing_before_all_are_in(tmp_path):
    scores = {"1": 0.1, "2": 0.3, "3": 0.3}
    search = Search(plan_of(tmp_path, ["a choice ['1','2','3']"], algo="exhaustive", trials=3))
    search.run(search.take(), lambda point, report: Outcome(0.1, {}))
    assert choice_of(search) is None
    work(search, lambda point, report, name: Outcome(scores[point["a"]], {}))
    assert choice_of(search) == ({"a": "2"}, {"a=1": 0.1, "a=2": 0.3, "a=3": 0.3})
    failing = Search(plan_of(tmp_path / "f", ["a choice ['1','2']"], algo="exhaustive", trials=2))

    def fail_second(point, report, name):
        if point["a"] == "2":
            raise ConfigError("no luck")
        return Outcome(0.1, {})

    work(failing, fail_second)
    assert (choice_of(failing).point, choice_of(failing).failed) == ({"a": "1"}, ["a=2"])


def test_the_edge_of_a_grid_is_that_of_its_numbers():
    grid = parse_grid(["lr=0.1,0.01,1", "kind=a,b"], ["BPR"], ["dns"])
    points = {"x": {"lr": "0.1", "kind": "a"}, "y": {"lr": "0.01", "kind": "b"}}
    assert edge_note(grid, points) == ["Chosen at the edge of the grid, so that a wider one may give more: lr: 1 of 2 rows."]
    assert edge_note(grid, {"x": points["x"]}) == []


def test_rows_are_tuned_on_validation_by_the_engine_of_tune(workdir, tiny_keys, capsys):
    keys = {**tiny_keys, "valid_metric": "NDCG@5", "epochs": 4}
    given = [f"--{key}={value}" for key, value in keys.items() if key != "learning_rate"]
    command = [
        "compare",
        "--dataset=tiny",
        "--models=BPR,Pop",
        "--negative_samplers=uniform,dns",
        "--seeds=2",
        "--out=out",
        *given,
    ]
    command += ["--grid", "BPR.learning_rate=0.00001,0.05"]

    # Half of the rows: the other half is not tuned, and the table says so.
    assert main([*command, "--only=1/2"]) == 0
    text = (workdir / "out" / "table.md").read_text()
    assert "not tuned yet, or failed at every point, are left out: BPR + dns." in text
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "tuning BPR + uniform: learning_rate choice ['0.00001', '0.05']\n2 of 2 trials have ended\n" in said
    assert "tuning BPR + dns: learning_rate choice ['0.00001', '0.05']\n" in said
    assert "6 cells in all, 6 in this share" in said
    # Trials judge by validation alone.
    records = [json.loads(path.read_text()) for path in (workdir / "out" / "tuning").glob("*/trials/*.json")]
    assert [record["test_result"] for record in records] == [None] * 4

    results = json.loads((workdir / "out" / "results.json").read_text())
    for label in ("BPR + uniform", "BPR + dns"):
        scores = results["grid"][label]["valid_scores"]
        best = max(scores, key=scores.get)
        assert results["grid"][label]["chosen"] == {"learning_rate": best.split("=")[1]}
        assert set(scores) == {"learning_rate=0.00001", "learning_rate=0.05"}
    assert [row["chosen"] for row in results["table"]["rows"]["ndcg@5"]] == ["learning_rate=0.05", "learning_rate=0.05", ""]
    records = [json.loads((workdir / "out" / "cells" / f"{name}.json").read_text()) for name in results["cells"]]
    assert [record["config"]["learning_rate"] for record in records[:4]] == [0.05] * 4
    text = (workdir / "out" / "table.md").read_text()
    assert "| chosen |" in text
    assert "Every row was tuned over the grid BPR.learning_rate in 0.00001, 0.05: the point with the best NDCG@5" in text
    assert r"learning\_rate=0.05" in (workdir / "out" / "table.tex").read_text()


def test_a_row_whose_points_all_fail_is_reported_and_left_out(workdir, tiny_keys, capsys, monkeypatch):
    given = [f"--{key}={value}" for key, value in {**tiny_keys, "valid_metric": "NDCG@5"}.items() if key != "learning_rate"]
    monkeypatch.setattr(tune_jobs, "_WORKER", (sys.executable, str(workdir / "failing.py")))
    (workdir / "failing.py").write_text(FAILING_WORKER)
    command = ["compare", "--dataset=tiny", "--models=BPR", "--seeds=2", "--out=out", "--grid", "learning_rate=0.1,0.2", *given]
    assert main(command) == 1
    assert "BPR + uniform: all 2 trials failed, the first with: no luck" in capsys.readouterr().err
    assert json.loads((workdir / "out" / "results.json").read_text())["grid"] == {"BPR + uniform": None}


FAILING_WORKER = """
import sys
from recbole_hnlm.experiments import tune_worker
from recbole_hnlm.experiments.trial import TrialRun
from recbole_hnlm.utils.errors import ConfigError
def fail(*args):
    raise ConfigError("no luck")
TrialRun.objective = fail
sys.exit(tune_worker.main())
"""


@pytest.mark.parametrize("given", [["--tune=x"], ["--trials=3"], ["--algo=tpe"]])
def test_a_grid_has_no_budget(workdir, capsys, given):
    command = ["compare", "--models=BPR", "--dataset=ml-100k", "--out=out", "--grid", "learning_rate=0.1,0.2", *given]
    assert main(command) == 2
    assert "does not go with --grid" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["--trials=3", "--algo=random", "--pruner=none"])
def test_how_to_tune_without_anything_to_tune_is_refused(workdir, capsys, given):
    assert main(["compare", "--models=BPR", "--dataset=ml-100k", "--out=out", "--seeds=1", given]) == 2
    assert "says how rows are tuned, and none is: add --tune=shipped" in capsys.readouterr().err
    assert not list(workdir.iterdir())
