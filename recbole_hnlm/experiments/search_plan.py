"""What a search is: its plan, what a trial gives, which trials count, and Optuna's parts for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from recbole_hnlm.experiments.space import Dimension, Space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import FrozenTrial

__all__ = [
    "Algorithm",
    "Outcome",
    "Pruned",
    "PrunerName",
    "SearchPlan",
    "counts",
    "failures_of",
    "make_pruner",
    "make_sampler",
]

Algorithm = Literal["tpe", "random", "exhaustive"]
PrunerName = Literal["median", "asha", "none"]
Pruned = optuna.TrialPruned

_ASHA_FACTOR = 3
_ASHA_RUNGS = 3  # the first rung is at a 27th of the epochs


@dataclass(frozen=True)
class SearchPlan:
    """What a search is.

    Attributes:
        name: of the study in its storage.
        folder: the search's folder: locks, journal, logs.
        storage: URL of the storage; None is the folder's journal.
        dimensions: the tuned keys.
        source: where they come from.
        algo: how points are chosen.
        pruner: how trials that do badly are ended early.
        trials: how many trials count in the end.
        seed: of the choice of points.
        bigger: whether a higher validation score is better.
        epochs: most epochs of a trial, for the pruner.
        eval_step: epochs between two validations, for the pruner.
        points: the points of an exhaustive search, in their order; None for the other algorithms.
        first: the point that is tried first, where points are drawn: what the configuration says without the search; None where
            the space does not hold it.
        settings: what a trial of another search could differ in; one that does is refused.
        code: digest of the code that runs the trials.
    """

    name: str
    folder: str
    storage: str | None
    dimensions: tuple[Dimension, ...]
    source: str
    algo: Algorithm
    pruner: PrunerName
    trials: int
    seed: int
    bigger: bool
    epochs: int
    eval_step: int
    points: tuple[dict[str, Any], ...] | None
    settings: dict[str, Any]
    code: str = ""
    first: dict[str, Any] | None = None

    @property
    def space(self) -> Space:
        """The tuned keys as a space."""
        return Space(self.dimensions, self.source)

    def with_folder(self, folder: str) -> SearchPlan:
        """Return the same with another folder."""
        return replace(self, folder=folder)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchPlan:
        """Undo :meth:`to_json`."""
        dimensions = tuple(
            Dimension(each["key"], each["kind"], tuple(each["values"]), tuple(each["numbers"])) for each in values["dimensions"]
        )
        points = None if values["points"] is None else tuple(values["points"])
        return cls(**{**values, "dimensions": dimensions, "points": points})


@dataclass(frozen=True)
class Outcome:
    """What a finished trial gave.

    Attributes:
        score: the validation score; the mean over seeds.
        details: plain values that are kept with the trial: scores by seed, metrics, epochs.
    """

    score: float
    details: dict[str, Any]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: under way, finished, pruned, or failed by itself."""
    return trial.state != TrialState.WAITING and "left_out" not in trial.user_attrs


def failures_of(trials: Sequence[FrozenTrial]) -> dict[int, str]:
    """Return the reason of each trial that failed by itself, by number."""
    return {
        trial.number: str(trial.user_attrs.get("reason", "unknown"))
        for trial in trials
        if trial.state == TrialState.FAIL and counts(trial)
    }


def make_sampler(algo: Algorithm, seed: int) -> BaseSampler:
    """Return Optuna's sampler; an exhaustive search queues its points, so that nothing is sampled."""
    if algo == "tpe":
        return TPESampler(seed=seed)
    return RandomSampler(seed=seed)


def make_pruner(plan: SearchPlan) -> BasePruner:
    """Return Optuna's pruner; its steps are epochs, counted from 1.

    ``median`` ends a trial whose best score so far is below the median of the others at the same epoch, after 5 trials and a
    tenth of the epochs. ``asha`` (successive halving) lets a third go on at a 27th, a 9th and a third of the epochs.
    """
    if plan.pruner == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=1 + plan.epochs // 10)
    if plan.pruner == "asha":
        first = max(plan.eval_step, math.ceil(plan.epochs / _ASHA_FACTOR**_ASHA_RUNGS))
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=_ASHA_FACTOR)
    return NopPruner()
