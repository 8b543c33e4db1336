"""The processes of a search on this machine: started, watched, and started again where one of them dies."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import TrialState
from tqdm import tqdm

from recbole_hnlm.experiments.jobs import available_cores, worker_environment
from recbole_hnlm.experiments.processes import Child, end_children, finish_child, start_child
from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import counts, failures_of
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.trial import FrozenTrial

    from recbole_hnlm.experiments.search_plan import SearchPlan
    from recbole_hnlm.experiments.trial import TrialRun

__all__ = ["run_search"]

_WORKER = (sys.executable, "-m", "recbole_hnlm.experiments.tune_worker")
_POLL_SECONDS = 0.3
# Processes that are killed this often before any trial ends are so for a reason that no further start will cure.
_MOST_DEATHS = 4


class _Progress:
    """The bar: trials that ended, time left, the best so far; a line for each failure."""

    def __init__(self, search: Search, label: str, *, shown: bool) -> None:
        self._search, self._told = search, set(failures_of(search.trials()))
        ended = len(_ended(search.trials()))
        total = max(ended, _goal(search))
        self._bar = tqdm(total=total, initial=ended, desc=label, unit="trial", dynamic_ncols=True, disable=not shown)
        self._ended = ended

    def update(self) -> int:
        """Show what there is now; returns the number of ended trials."""
        trials, best = self._search.trials(), self._search.best()
        for number, reason in failures_of(trials).items():
            if number not in self._told:
                self._told.add(number)
                tqdm.write(f"trial {number} failed: {reason}", file=sys.stderr)
        ended = len(_ended(trials))
        if ended != self._ended:
            if best is not None:
                self._bar.set_postfix_str(f"best {best.value:.4f} (trial {best.number})", refresh=False)
            self._bar.update(ended - self._ended)
            self._ended = ended
        elif sys.stderr.isatty():
            self._bar.refresh()  # the clock goes on
        return ended

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def _ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if counts(trial) and trial.state.is_finished()]


def _goal(search: Search) -> int:
    size = len(search.plan.points) if search.plan.points is not None else search.space.size()
    return search.plan.trials if size is None else min(search.plan.trials, size)


def run_search(
    plan: SearchPlan,
    run: TrialRun,
    jobs: int,
    label: str = "trials",
    say: Callable[[str], None] = tqdm.write,
    *,
    shown: bool = True,
) -> Search:
    """Run a search to its end, or go on with it.

    When this process is interrupted or killed, its workers end; what they were at is tried again next time.

    Args:
        plan: the search.
        run: what its trials have in common.
        jobs: processes on this machine.
        label: of the progress bar.
        say: prints a line.
        shown: whether there is a progress bar.

    Returns:
        The search, for its results.

    Raises:
        HNLMError: what no other point would change, or processes that die whatever they run.
    """
    search = Search(plan, workers=jobs)
    ended = len(_ended(search.trials()))
    if ended and search.study.user_attrs.get("code") != plan.code:
        say(f"the {ended} trials so far were run by another state of the code: begin again in another --out if that matters")
    if found := search.recover():
        say(f"left by processes that are gone, to be tried again: trial {', '.join(map(str, found))}")
    if ended:
        say(f"{ended} of {_goal(search)} trials have ended")
    if not search.is_over():
        progress = _Progress(search, label, shown=shown)
        try:
            _supervise(search, run, jobs, progress)
        finally:
            progress.close()
    return search


def _supervise(search: Search, run: TrialRun, jobs: int, progress: _Progress) -> None:
    folder = Path(search.plan.folder)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    start = {"plan": search.plan.to_json(), "run": run.to_json(), "workers": jobs}
    running = {number: _start(folder, number, start, jobs) for number in range(min(jobs, _goal(search)))}
    problem, deaths, best_ended = None, 0, progress.update()
    try:
        while running:
            time.sleep(_POLL_SECONDS)
            ended = progress.update()
            if ended > best_ended:
                best_ended, deaths = ended, 0
            for number, worker in [each for each in running.items() if each[1].process.poll() is not None]:
                del running[number]
                said = finish_child(worker)
                killed = worker.process.returncode < 0
                deaths += killed
                if worker.process.returncode == USER_ERROR_EXIT_CODE or deaths >= _MOST_DEATHS:
                    problem = said
                elif worker.process.returncode > 0:
                    problem = f"{said} (traceback in {worker.log})"
                # A killed process may have run out of memory in its trial. Any end is a time to look for what is left behind.
                search.recover(said if killed else None)
                if problem is None and _wants_more(search, len(running)):
                    running[number] = _start(folder, number, start, jobs)
        progress.update()
    finally:
        end_children(running.values())
    if problem is not None:
        raise BackendError(f"{problem}; finished trials are kept: run the same command again to go on")


def _wants_more(search: Search, running: int) -> bool:
    """Whether there is a trial for one more process: one that waits, or one that nobody is at."""
    mine = [trial for trial in search.trials() if counts(trial)]
    waiting = sum(trial.state == TrialState.WAITING for trial in search.trials())
    if search.is_over() or len(mine) >= search.plan.trials:
        return False
    return waiting > 0 or (search.plan.points is None and running == 0)


def _start(folder: Path, number: int, request: dict[str, object], jobs: int) -> Child:
    environment = worker_environment(jobs, available_cores(), os.environ)
    log = folder / "log" / f"worker-{os.getpid()}-{number}.txt"
    return start_child(_WORKER, {**request, "worker": number}, log, environment)
