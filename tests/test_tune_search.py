"""The engine of ``tune``: which trial comes next, and what a kill leaves."""

import json
import time

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from tune_kit import plan_of, scripted, states

from recbole_hnlm.experiments import search as search_module
from recbole_hnlm.experiments import workers
from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import Outcome, SearchPlan, counts, failures_of
from recbole_hnlm.experiments.space import point_key
from recbole_hnlm.experiments.storage import JOURNAL, cut_torn_line, open_storage
from recbole_hnlm.experiments.tune_loop import work
from recbole_hnlm.experiments.workers import Pulse, is_alive, this_worker
from recbole_hnlm.utils.errors import (
    ArtifactError,
    BackendError,
    ConfigError,
    DataError,
    HNLMError,
    MissingDependencyError,
)


def test_a_search_ends_after_its_trials_and_goes_on_where_more_are_wanted(tmp_path):
    search = Search(plan_of(tmp_path))
    work(search, scripted)
    assert states(search) == ["COMPLETE"] * 12
    best = search.best()
    assert search.params(best)["n_layers"] == 3
    assert best.value == max(trial.value for trial in search.counted())
    assert (search.is_over(), search.take()) == (True, None)
    assert best.user_attrs["details"]["valid"] == {"mrr@5": best.value}
    # --trials counts those that are there.
    more = Search(plan_of(tmp_path, trials=14))
    assert not more.is_over()
    work(more, scripted)
    assert len(more.counted()) == 14
    assert len({point_key(more.params(trial)) for trial in more.counted()}) == 14


@pytest.mark.parametrize("algo", ["tpe", "random"])
def test_the_configured_point_is_tried_first_and_once(tmp_path, algo):
    own = {"learning_rate": 0.005, "n_layers": 3}  # the best there is
    for trials in (3, 6):
        search = Search(plan_of(tmp_path, algo=algo, first=own, trials=trials))
        work(search, scripted)
        assert [search.params(trial) == own for trial in search.counted()] == [True] + [False] * (trials - 1)
        assert search.best().number == 0


def test_a_configured_point_that_was_interrupted_is_tried_again_once(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, first={"learning_rate": 0.005, "n_layers": 3}, trials=3)
    Search(plan).take()  # and its process is gone
    monkeypatch.setattr(search_module, "is_alive", lambda *_: False)
    search = Search(plan)
    assert search.recover() == [0]
    work(search, scripted)
    assert [search.params(trial) == plan.first for trial in search.counted()].count(True) == 1
    assert len(search.counted()) == 3


def test_a_plan_survives_the_way_to_another_process(tmp_path):
    for plan in (plan_of(tmp_path), plan_of(tmp_path, ["n_layers choice [1,2]"], algo="exhaustive")):
        assert SearchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_the_lowest_score_is_best_where_smaller_is_better(tmp_path):
    search = Search(plan_of(tmp_path, bigger=False))
    work(search, scripted)
    assert search.best().value == min(trial.value for trial in search.counted())


@pytest.mark.parametrize("algo", ["tpe", "random"])
def test_a_point_that_is_known_is_not_run_again_and_a_space_that_is_used_up_ends_the_search(tmp_path, algo):
    ran = []
    search = Search(plan_of(tmp_path, ["n_layers choice [1,2,3]", "reg_weight choice [0.1,0.2]"], algo=algo, trials=500))
    work(search, lambda point, report, name: ran.append(point_key(point)) or scripted(point, report, name))
    assert len(ran) == len(set(ran)) == 6
    copies = [trial for trial in search.counted() if "copy_of" in trial.user_attrs]
    assert len(search.counted()) == 6 + len(copies) < 500
    by_number = {trial.number: trial for trial in search.counted()}
    assert all(trial.value == by_number[trial.user_attrs["copy_of"]].value for trial in copies)


def test_an_exhaustive_search_runs_every_point_once(tmp_path):
    ran = []
    plan = plan_of(tmp_path, ["n_layers choice [1,2,3]", "dropout quniform 0,0.3,0.1"], algo="exhaustive", trials=12)
    for _ in range(2):  # queued once, however often the search is opened
        Search(plan)
    work(Search(plan), lambda point, report, name: ran.append(point) or scripted(point, report, name))
    assert ran == [{"n_layers": layers, "dropout": rate} for layers in (1, 2, 3) for rate in (0.0, 0.1, 0.2, 0.3)]


def test_failures_are_recorded_with_their_reason_and_do_not_stop_the_search(tmp_path):
    def failing(point, report, name):
        if point["n_layers"] == 1:
            raise ConfigError("one layer\nis too few")
        if point["n_layers"] == 2:
            raise RuntimeError("out of memory")
        if point["n_layers"] == 3:
            return Outcome(float("nan"), {})
        return scripted(point, report, name)

    search = Search(plan_of(tmp_path, ["n_layers choice [1,2,3,4]"], algo="exhaustive", trials=4))
    work(search, failing)
    assert failures_of(search.trials()) == {
        0: "one layer is too few",
        1: "RuntimeError: out of memory",
        2: "the validation score is nan",
    }
    assert states(search) == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert "raise RuntimeError" in (tmp_path / "log" / "trial-1.txt").read_text()


@pytest.mark.parametrize("error", [BackendError, DataError, KeyboardInterrupt])
def test_what_no_other_point_would_change_ends_the_process_and_the_trial_is_tried_again(tmp_path, error):
    def unlucky(point, report, name):
        if name == "trial-1":
            raise error("no answer")
        return scripted(point, report, name)

    search = Search(plan_of(tmp_path, trials=3))
    with pytest.raises(error):
        work(search, unlucky)
    assert len(search.counted()) == 1
    again = Search(plan_of(tmp_path, trials=3))
    again.recover()
    work(again, scripted)
    assert states(again) == ["COMPLETE"] * 3
    trials = again.trials()
    assert trials[2].user_attrs["retry_of"] == 1
    assert again.params(trials[2]) == again.params(trials[1])


def test_a_trial_that_does_badly_is_pruned_by_its_validation_scores(tmp_path):
    def curves(point, report, name):
        for epoch in range(10):
            report(epoch, point["n_layers"] / 10)
        return Outcome(point["n_layers"] / 10, {})

    lines = [f"n_layers choice {list(range(9, 0, -1))}"]
    search = Search(plan_of(tmp_path, lines, algo="exhaustive", pruner="median", trials=9))
    work(search, curves)
    assert states(search) == ["COMPLETE"] * 5 + ["PRUNED"] * 4
    pruned = search.counted()[5]
    assert (max(pruned.intermediate_values), pruned.value) == (2, 0.4)  # warm-up of a tenth of the epochs, then at once
    halved = Search(plan_of(tmp_path / "asha", lines, algo="exhaustive", pruner="asha", trials=9))
    work(halved, curves)
    assert halved.counted()[-1].state.name == "PRUNED"


# --- after a kill ----------------------------------------------------------------------------------------------------------


def _abandon(search, monkeypatch, worker=None):
    """Take a trial in the name of a process that is gone."""
    with monkeypatch.context() as patch:
        patch.setattr(search_module, "this_worker", lambda: worker or {**this_worker(), "started": 1.0})
        return search.take()


def test_a_killed_process_leaves_its_trial_to_be_tried_again_once(tmp_path, monkeypatch):
    search = Search(plan_of(tmp_path, trials=3))
    lost = _abandon(search, monkeypatch)
    again = Search(plan_of(tmp_path, trials=3))
    assert again.recover() == [lost.number]
    assert (again.recover(), Search(plan_of(tmp_path, trials=3)).recover()) == ([], [])
    ran = []
    work(again, lambda point, report, name: ran.append(point) or scripted(point, report, name))
    assert states(again) == ["COMPLETE"] * 3
    assert ran[0] == again.params(again.trials()[0])
    assert [trial.user_attrs.get("retry_of") for trial in again.trials()] == [None, 0, None, None]
    # The process that was taken for dead wakes up: its result is not counted a second time.
    search.run(lost, lambda point, report: Outcome(9.0, {}))
    assert again.best().value < 9
    with pytest.raises(UpdateFinishedTrialError):
        search.run(lost, lambda point, report: report(0, 9.0))


def test_a_process_killed_between_two_writes_loses_nothing(tmp_path):
    """The journal is cut behind every record, torn in the middle of the next one, and the search goes on from there."""
    whole = Search(plan_of(tmp_path / "whole", trials=2))
    work(whole, scripted)
    journal = (tmp_path / "whole" / JOURNAL).read_bytes()
    lines = journal.splitlines(keepends=True)
    assert len(lines) > 20
    for kept in range(3, len(lines)):
        folder = tmp_path / str(kept)
        folder.mkdir()
        torn = lines[kept][: len(lines[kept]) // 2] if kept % 2 else lines[kept][:-1]
        content = b"".join(lines[:kept]).replace(b'"started":', b'"started":1') + torn
        (folder / JOURNAL).write_bytes(content)
        search = Search(plan_of(folder, trials=2))
        search.recover()
        work(search, scripted)
        assert states(search) == ["COMPLETE"] * 2, kept
        assert not [trial for trial in search.trials() if not trial.state.is_finished()], kept
        assert len({point_key(search.params(trial)) for trial in search.counted()}) == 2, kept


def test_trials_of_living_processes_are_left_alone(tmp_path, monkeypatch):
    search = Search(plan_of(tmp_path))
    search.take()
    assert search.recover() == []
    elsewhere = _abandon(search, monkeypatch, {"host": "another machine", "pid": 1, "started": 1.0})
    assert search.recover() == []
    monkeypatch.setattr(workers, "_SILENCE_SECONDS", -1.0)
    assert search.recover() == [elsewhere.number]


def test_who_lives():
    mine = this_worker()
    assert is_alive(mine, 0.0)
    assert not is_alive({**mine, "started": mine["started"] - 100}, time.time())  # the number was given again
    assert not is_alive({**mine, "pid": 2**30}, time.time())
    other = {**mine, "host": "another machine"}
    assert is_alive(other, 1000.0, now=1500.0)
    assert not is_alive(other, 1000.0, now=1700.0)


def test_a_pulse_beats_while_its_block_runs():
    beats = []
    with Pulse(lambda: beats.append(1), seconds=0.01):
        deadline = time.monotonic() + 5
        while len(beats) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    seen = len(beats)
    time.sleep(0.05)
    assert seen == len(beats) >= 2


def test_a_point_whose_process_dies_twice_by_itself_has_failed(tmp_path, monkeypatch):
    search = Search(plan_of(tmp_path, trials=2))
    _abandon(search, monkeypatch)
    search.recover("killed by signal 9")
    assert not search.counted()
    _abandon(search, monkeypatch)
    search.recover("killed by signal 9")
    assert failures_of(search.trials()) == {1: "its process died twice: killed by signal 9"}
    work(search, scripted)
    assert states(search) == ["FAIL", "COMPLETE"]


def test_no_more_trials_are_taken_than_wanted_by_two_processes_at_once(tmp_path):
    one, two = (Search(plan_of(tmp_path, trials=2), worker=number, workers=2) for number in range(2))
    first, second = one.take(), two.take()
    assert one.params(one.trials()[0]) != one.params(one.trials()[1])
    assert (one.take(), two.take()) == (None, None)
    for search, trial in ((one, first), (two, second)):
        search.run(trial, lambda point, report: Outcome(1.0, {}))
    assert one.is_over()


def test_a_trial_above_the_number_is_left_out(tmp_path):
    search = Search(plan_of(tmp_path, trials=1))
    search.take()
    assert search._ask(1) is None
    assert [counts(trial) for trial in search.trials()] == [True, False]


def test_other_settings_are_another_search(tmp_path):
    Search(plan_of(tmp_path))
    with pytest.raises(ArtifactError, match=r"holds a search with other settings: model was BPR, now NeuMF; give the same"):
        Search(plan_of(tmp_path, settings={"model": "NeuMF"}))
    with pytest.raises(ArtifactError, match="other settings: space was"):
        Search(plan_of(tmp_path, ["n_layers choice [1]"]))
    Search(plan_of(tmp_path, pruner="asha", trials=99, algo="random"))


# --- storages --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kept"), [(b"", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\n"), (b"b", b""), (b"a\n" + b"x" * 200_000, b"a\n")]
)
def test_a_torn_last_line_is_cut(tmp_path, content, kept):
    path = tmp_path / "j"
    path.write_bytes(content)
    assert cut_torn_line(path) == len(content) - len(kept)
    assert path.read_bytes() == kept


def test_an_append_behind_a_torn_line_by_a_process_that_lived_on(tmp_path):
    search = Search(plan_of(tmp_path, trials=2))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"gone')
    work(search, scripted)
    assert states(Search(plan_of(tmp_path, trials=2))) == ["COMPLETE"] * 2


def test_a_damaged_journal_is_one_line(tmp_path):
    work(Search(plan_of(tmp_path, trials=2)), scripted)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    (tmp_path / JOURNAL).write_text("\n".join([*lines[:3], lines[3][:5] + lines[4], *lines[5:]]) + "\n")
    with pytest.raises(ArtifactError, match=r"journal .*journal.log is damaged .*move it away") as caught:
        Search(plan_of(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("tuned.db", ConfigError, "expected a URL"),
        ("nothing://host/x", ConfigError, "is no URL of a database"),
        ("sqlite:///x.db", ConfigError, "loses writes of several processes"),
        ("oracle://user:secret@host/x", MissingDependencyError, "driver is not installed"),
        ("grpc://host", ConfigError, "expected grpc://HOST:PORT"),
    ],
)
def test_storages_that_cannot_be_used_are_one_line_without_the_password(tmp_path, url, error, message):
    with pytest.raises(error, match=message) as caught:
        open_storage(url, tmp_path, workers=2)
    assert isinstance(caught.value, HNLMError)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_any_storage_of_optunas_holds_a_search(tmp_path):
    plan = plan_of(tmp_path, storage=f"sqlite:///{tmp_path / 'x.db'}", trials=3)
    work(Search(plan), scripted)
    assert states(Search(plan)) == ["COMPLETE"] * 3
