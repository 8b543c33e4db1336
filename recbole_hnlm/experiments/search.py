"""A search on Optuna: which trial comes next, what becomes of it, and what a killed process leaves to be tried again.

Everything a search knows is in its storage, so that any number of processes, on any number of machines, work on it at once
and each of them may be killed at any moment. A trial *counts* if it finished, was pruned, failed by itself or is under way;
those whose process was killed do not, and neither do surplus ones. ``trials`` is the number that count in the end.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from recbole_hnlm.experiments.search_plan import Pruned, counts, make_pruner, make_sampler
from recbole_hnlm.experiments.space import point_key
from recbole_hnlm.experiments.storage import open_storage
from recbole_hnlm.experiments.workers import Pulse, is_alive, this_worker
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.trial import FrozenTrial, Trial

    from recbole_hnlm.experiments.search_plan import Outcome, SearchPlan

__all__ = ["Search"]

# In a discrete space a sampler may propose what another process is at: it is asked again, within reason.
_ATTEMPTS = 100
_LAST_CRASH = 2  # a point whose process was killed this often without its parent has failed
_UNATTRIBUTED_SECONDS = 120.0  # between making a trial and signing it; milliseconds where nothing was killed


class Search:
    """One process's view of a search.

    Args:
        plan: the search.
        worker: number of this process among those of this machine; processes draw different points.
        workers: how many there are.

    Raises:
        HNLMError: the storage cannot be used, or holds a search of other settings under this name.
    """

    def __init__(self, plan: SearchPlan, worker: int = 0, workers: int = 1) -> None:
        self.plan, self.space = plan, plan.space
        folder = Path(plan.folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Held while a trial is made and signed, so that who holds it knows that an unsigned one was left by a killed process.
        self._lock = FileLock(folder / f".{plan.name}.lock")
        self._worker = worker
        self._distributions = self.space.distributions()
        self._storage = open_storage(plan.storage, folder, workers)
        with self._lock:
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=plan.name,
                direction="maximize" if plan.bigger else "minimize",
                pruner=make_pruner(plan),
                load_if_exists=True,
            )
            self._check_settings()
            self._queue_points()

    def _check_settings(self) -> None:
        mine = {**self.plan.settings, "space": self.space.to_lines()}
        theirs = self.study.user_attrs.get("settings")
        if theirs is None:
            self.study.set_user_attr("settings", mine)
            self.study.set_user_attr("code", self.plan.code)
            return
        differing = [key for key in {**theirs, **mine} if theirs.get(key) != mine.get(key)]
        if differing:
            key, more = differing[0], f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise ArtifactError(
                f"{self.plan.folder} holds a search with other settings: {key} was {str(theirs.get(key))[:80]}, now "
                f"{str(mine.get(key))[:80]}{more}; give the same ones to go on, or another --out "
                "(with --storage: another --study) for a new search"
            )

    def _queue_points(self) -> None:
        points = self.plan.points
        if points is None:
            points = () if self.plan.first is None else (self.plan.first,)
        # A surplus trial was drawn, not queued: its point may still be to be tried.
        known = {point_key(self.params(each)) for each in self.trials() if "surplus" not in each.user_attrs.get("left_out", "")}
        for point in points:
            if point_key(point) not in known:
                self.study.enqueue_trial(point)

    # --- what there is -----------------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers, those that do not count too."""
        return self.study.get_trials(deepcopy=False)

    def params(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a trial's point, or what is known of it where its process was killed while it was drawn."""
        return self.space.exact({**trial.system_attrs.get("fixed_params", {}), **trial.params})

    def counted(self) -> list[FrozenTrial]:
        """Return the trials that count."""
        return [trial for trial in self.trials() if counts(trial)]

    def best(self) -> FrozenTrial | None:
        """Return the best finished trial, the first of equals; None where none finished."""
        finished = [trial for trial in self.counted() if trial.state == TrialState.COMPLETE and trial.value is not None]
        if not finished:
            return None
        sign = -1.0 if self.plan.bigger else 1.0
        return min(finished, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))

    def is_over(self) -> bool:
        """Whether as many trials as wanted have ended, or every point of the space has."""
        ended = [trial for trial in self.counted() if trial.state.is_finished()]
        return len(ended) >= self.plan.trials or self._is_exhausted(ended)

    def _is_exhausted(self, ended: Sequence[FrozenTrial]) -> bool:
        size = len(self.plan.points) if self.plan.points is not None else self.space.size()
        return size is not None and len({point_key(self.params(trial)) for trial in ended}) >= size

    # --- taking a trial ----------------------------------------------------------------------------------------------

    def take(self) -> Trial | None:
        """Return the next trial for this process, or None where no more are wanted.

        A point that an earlier trial has finished is not run again: the new trial takes that one's result.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                trials = self.trials()
                mine = [trial for trial in trials if counts(trial)]
                if len(mine) >= self.plan.trials or self._is_exhausted([each for each in mine if each.state.is_finished()]):
                    return None
                if self.plan.points is not None and not any(trial.state == TrialState.WAITING for trial in trials):
                    return None
                trial = self._ask(len(trials))
                if trial is None:
                    return None
                if self._is_new(trial):
                    return trial
        return None

    def _ask(self, made: int) -> Trial | None:
        # A fresh sampler for each trial: a search that goes on after a kill must not draw its first points again.
        draw = random.Random(f"{self.plan.seed}/{made}/{self._worker}")  # noqa: S311 - not for secrets
        self.study.sampler = make_sampler(self.plan.algo, draw.getrandbits(31))
        trial = self.study.ask(self._distributions)
        trial.set_user_attr("worker", this_worker())
        trial.set_user_attr("seen", time.time())
        earlier = [other for other in self.trials() if other.number < trial.number and counts(other)]
        if len(earlier) >= self.plan.trials:
            # Processes on other machines, which this lock does not hold back, took the last ones.
            self._leave_out(trial.number, "surplus: enough trials were under way")
            return None
        if self.plan.points is not None and "fixed_params" not in self.trials()[trial.number].system_attrs:
            self._leave_out(trial.number, "surplus: every point was taken")
            return None
        return trial

    def _is_new(self, trial: Trial) -> bool:
        trials = self.trials()
        key = point_key(self.params(trials[trial.number]))
        equal = [
            other for other in trials if other.number < trial.number and counts(other) and point_key(self.params(other)) == key
        ]
        ended = next((other for other in equal if other.state.is_finished()), None)
        if ended is not None:
            self._copy(trial, ended)
        elif equal:
            self._leave_out(trial.number, f"the point of trial {equal[0].number}, which is under way")
        return not equal

    def _copy(self, trial: Trial, known: FrozenTrial) -> None:
        """Give a trial the result of an equal one; it counts, and costs nothing."""
        kept = {key: value for key, value in known.user_attrs.items() if key in {"details", "reason"}}
        for key, value in {**kept, "copy_of": known.user_attrs.get("copy_of", known.number)}.items():
            trial.set_user_attr(key, value)
        for step, score in known.intermediate_values.items():
            trial.report(score, step)
        self.study.tell(trial, known.value if known.state == TrialState.COMPLETE else None, known.state)

    def _leave_out(self, number: int, why: str) -> None:
        self._set(number, "left_out", why)
        self.study.tell(number, state=TrialState.FAIL)

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self.trials()[number]._trial_id, key, value)

    # --- running a trial ---------------------------------------------------------------------------------------------

    def run(self, trial: Trial, objective: Callable[[dict[str, Any], Callable[[int, float], None]], Outcome]) -> None:
        """Run a trial and record what became of it.

        Args:
            trial: one of :meth:`take`.
            objective: is called with the point and a function that takes the epoch (from 0) and its validation score, and that
                raises :class:`Pruned` where the trial is to end.

        Raises:
            BaseException: whatever ``objective`` raises but a pruning; the caller says what it means, by :meth:`fail` or
                :meth:`interrupt`.
        """
        start = time.time()

        def report(epoch: int, score: float) -> None:
            trial.report(score, epoch + 1)
            if trial.should_prune():
                raise Pruned(f"pruned after epoch {epoch + 1}")

        with Pulse(lambda: trial.set_user_attr("seen", time.time())):
            try:
                outcome = objective(self.space.exact(trial.params), report)
            except Pruned:
                self._end(trial, start, {}, TrialState.PRUNED, None)
                return
        if not math.isfinite(outcome.score):
            self.fail(trial, f"the validation score is {outcome.score}")
            return
        self._end(trial, start, outcome.details, TrialState.COMPLETE, outcome.score)

    def _end(self, trial: Trial, start: float, details: dict[str, Any], state: TrialState, score: float | None) -> None:
        try:
            trial.set_user_attr("details", {**details, "seconds": round(time.time() - start, 3)})
            self.study.tell(trial, score, state)
        except (UpdateFinishedTrialError, ValueError):
            # This process was silent for so long that another took it for dead and has the point tried again.
            return

    def fail(self, trial: Trial, reason: str) -> None:
        """Record that a trial failed by itself; it counts and is not tried again."""
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def interrupt(self, trial: Trial, reason: str) -> None:
        """Record that a trial was ended by what is not its fault; it does not count, and is tried again next time."""
        self._leave_out(trial.number, f"interrupted: {reason}")

    # --- after a kill ------------------------------------------------------------------------------------------------

    def recover(self, crash: str | None = None) -> list[int]:
        """Find trials whose process is gone and queue their points again.

        Args:
            crash: the reason, where a process of this search died while its parent lives: then the trial may be at fault, and
                one whose point dies a second time has failed.

        Returns:
            Numbers of the trials that were found.
        """
        with self._lock:
            gone = [trial for trial in self.trials() if trial.state == TrialState.RUNNING and not self._lives(trial)]
            for trial in gone:
                self._bury(trial, crash)
            self._queue_again()
        return [trial.number for trial in gone]

    def _lives(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker is not None:
            return is_alive(worker, float(trial.user_attrs.get("seen", 0.0)))
        if self.plan.storage is None or trial.datetime_start is None:
            return False
        return time.time() - trial.datetime_start.timestamp() < _UNATTRIBUTED_SECONDS

    def _bury(self, trial: FrozenTrial, crash: str | None) -> None:
        if crash is not None:
            self._set(trial.number, "crashed", crash)
            if self._crashes(trial.number) >= _LAST_CRASH:
                self._set(trial.number, "reason", f"its process died twice: {crash}")
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                return
        self._set(trial.number, "left_out", "interrupted: its process is gone")
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _crashes(self, number: int) -> int:
        trials, found, place = self.trials(), 0, number
        while True:
            found += "crashed" in trials[place].user_attrs
            if "retry_of" not in trials[place].user_attrs:
                return found
            place = trials[place].user_attrs["retry_of"]

    def _queue_again(self) -> None:
        """Queue the point of every interrupted trial that has no successor, in whichever process it was left."""
        trials = self.trials()
        followed = {trial.user_attrs.get("retry_of") for trial in trials}
        for trial in trials:
            was_interrupted = str(trial.user_attrs.get("left_out", "")).startswith("interrupted")
            point = self.params(trial)
            if was_interrupted and trial.number not in followed and len(point) == len(self.space.dimensions):
                self.study.enqueue_trial(point, user_attrs={"retry_of": trial.number})
