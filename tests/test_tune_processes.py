"""Several processes on one search, of which some are killed: on a journal file, and on a real PostgreSQL."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tune_kit import plan_of

from recbole_hnlm.experiments import tune_jobs
from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import Outcome, failures_of
from recbole_hnlm.experiments.space import point_key
from recbole_hnlm.utils.errors import HNLMError

WORKER = (sys.executable, str(Path(__file__).with_name("tune_processes.py")))


class ScriptedRun:
    """What the worker of ``tune_processes.py`` reads in place of a :class:`TrialRun`."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def to_json(self):
        return {"seconds": self.seconds}


def _check(search, trials):
    """As many trials as asked for, each once, and no other left open."""
    assert [trial.state.name for trial in search.counted()] == ["COMPLETE"] * trials
    assert all(trial.state.is_finished() for trial in search.trials())
    assert len({point_key(search.params(trial)) for trial in search.counted()}) == trials


def _two_workers_of_which_one_is_killed(folder, monkeypatch, storage=None):
    monkeypatch.setattr(tune_jobs, "_WORKER", WORKER)
    folder.mkdir(exist_ok=True)
    (folder / "to kill").write_text("")
    search = tune_jobs.run_search(plan_of(folder, trials=6, storage=storage), ScriptedRun(0.2), jobs=2)
    _check(search, 6)
    retries = [trial for trial in search.trials() if "retry_of" in trial.user_attrs]
    assert len(retries) == 1
    lost = search.trials()[retries[0].user_attrs["retry_of"]]
    assert lost.user_attrs["crashed"].startswith("killed by signal 9")
    assert search.params(lost) == search.params(retries[0])
    assert len({trial.user_attrs["worker"]["pid"] for trial in search.trials()}) >= 2


def test_two_workers_on_one_journal_of_which_one_is_killed(tmp_path, monkeypatch):
    _two_workers_of_which_one_is_killed(tmp_path, monkeypatch)


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from recbole_hnlm.experiments import tune_jobs
from test_tune_processes import WORKER, ScriptedRun
from tune_kit import plan_of
tune_jobs._WORKER = WORKER
tune_jobs.run_search(plan_of(Path(sys.argv[2]), trials=5), ScriptedRun(0.5), jobs=1)
"""


def test_the_whole_command_is_killed_and_goes_on(tmp_path, monkeypatch):
    command = [sys.executable, "-c", PARENT, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 250
        while not (tmp_path / "ran-trial-1").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
    worker = int((tmp_path / "ran-trial-1").read_text().split()[0])
    deadline = time.monotonic() + 30
    while _lives(worker) and time.monotonic() < deadline:  # it notices that its parent is gone
        time.sleep(0.05)
    assert not _lives(worker)
    ended = [trial.number for trial in Search(plan_of(tmp_path, trials=5)).counted() if trial.state.is_finished()]
    monkeypatch.setattr(tune_jobs, "_WORKER", WORKER)
    said = []
    search = tune_jobs.run_search(plan_of(tmp_path, trials=5), ScriptedRun(), jobs=1, say=said.append)
    _check(search, 5)
    assert {*ended} <= {trial.number for trial in search.counted()}
    assert said[0].startswith("left by processes that are gone, to be tried again: trial ")
    # Over: nothing is started.
    monkeypatch.setattr(tune_jobs, "_WORKER", ("/nonexistent",))
    _check(tune_jobs.run_search(plan_of(tmp_path, trials=5), ScriptedRun(), jobs=2), 5)


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_cannot_start_ends_the_search_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tune_jobs, "_WORKER", (sys.executable, "-c", "raise SystemExit('error: no luck')"))
    with pytest.raises(HNLMError, match=r"no luck \(traceback in .*\); finished trials are kept"):
        tune_jobs.run_search(plan_of(tmp_path, trials=2), ScriptedRun(), jobs=1)
    killed = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    monkeypatch.setattr(tune_jobs, "_WORKER", (sys.executable, "-c", killed))
    with pytest.raises(HNLMError, match="killed by signal 9"):
        tune_jobs.run_search(plan_of(tmp_path, trials=2), ScriptedRun(), jobs=1)
    assert failures_of(Search(plan_of(tmp_path, trials=2)).trials()) == {}


# --- PostgreSQL ------------------------------------------------------------------------------------------------------------


def _programs():
    """Where initdb and pg_ctl are: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


@pytest.fixture(scope="module")
def postgresql():
    """The URL of a PostgreSQL server of our own, on a socket in a new folder."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="the extra `storage` is not installed")
    # Not below pytest's folders, which are closed to other users: the server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="hnlm-pg-"))
    as_user = []
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def call(*command):
        result = subprocess.run([*as_user, *map(str, command)], capture_output=True, text=True, check=False, cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr

    call(programs / "initdb", "-D", data, "-A", "trust", "-U", "tuner", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    call(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    yield f"postgresql+psycopg://tuner@/postgres?host={folder}"
    call(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.services
def test_two_workers_on_postgresql_of_which_one_is_killed(tmp_path, monkeypatch, postgresql):
    _two_workers_of_which_one_is_killed(tmp_path, monkeypatch, postgresql)


@pytest.mark.services
def test_two_machines_share_a_search_on_postgresql(tmp_path, postgresql):
    """Their folders, and so their locks, differ."""
    one, two = (
        Search(plan_of(tmp_path / name, trials=3, name="shared", storage=postgresql), worker=number)
        for number, name in enumerate("ab")
    )
    taken = [one.take(), two.take(), one.take()]
    assert [search.take() for search in (one, two)] == [None, None]
    assert sorted(trial.number for trial in taken) == [0, 1, 2]
    for search, trial in zip((one, two, one), taken, strict=True):
        search.run(trial, _reported)
    assert (one.is_over(), two.is_over()) == (True, True)
    _check(two, 3)


def _reported(point, report):
    report(0, 0.5)
    return Outcome(0.5, {"scores": [0.5]})
