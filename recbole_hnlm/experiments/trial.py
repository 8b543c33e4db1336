"""One trial of a search: a model trained with the point's keys and judged on validation alone."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config import Config
from recbole_hnlm.experiments.search_plan import Outcome
from recbole_hnlm.quick_start.runner import run, train_and_validate
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole_hnlm.utils.results import RunResult

__all__ = ["TrialRun"]


@dataclass(frozen=True)
class TrialRun:
    """What all trials of a search have in common.

    Attributes:
        model: name of the model, or ``package.module:Class``.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
        keys: the command line's keys; they hold for every trial.
        seeds: a trial is the mean over these.
        folder: the search's folder, for logs and records of trials.
    """

    model: str
    dataset: str | None
    config_files: tuple[str, ...]
    keys: dict[str, Any]
    seeds: tuple[int, ...]
    folder: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialRun:
        """Undo :meth:`to_json`."""
        return cls(**{**values, "config_files": tuple(values["config_files"]), "seeds": tuple(values["seeds"])})

    def with_folder(self, folder: str) -> TrialRun:
        """Return the same with another folder."""
        return replace(self, folder=folder)

    def config(self, point: Mapping[str, Any], seed: int | None = None, **keys: Any) -> Config:
        """Build the configuration of a point.

        Args:
            point: values of the tuned keys; they win over files, and no key of the command line is among them.
            seed: of training; the split keeps the first one, so that seeds differ in training alone. None leaves both as given.
            keys: further ones, such as folders.

        Raises:
            ConfigError: a value that the model does not take.
        """
        seeds = {} if seed is None else {"seed": seed, "split_seed": self.keys.get("split_seed", self.seeds[0])}
        given = {**self.keys, **point, **seeds, **keys}
        return Config(self.model, self.dataset, list(self.config_files), given, strict=False)

    def objective(self, point: Mapping[str, Any], report: Callable[[int, float], None], name: str) -> Outcome:
        """Train with a point, once for each seed; the first seed's validation scores are reported as they come.

        Args:
            point: values of the tuned keys.
            report: takes an epoch and its score, and may raise to end the trial.
            name: of the trial, for its files.

        Raises:
            HNLMError: anything the user can fix.
        """
        results = []
        for place, seed in enumerate(self.seeds):
            keys = {**self._folders("trials"), "show_progress": False}
            # Later seeds run through: their scores are not comparable with the first's of other trials, epoch by epoch.
            callback = report if place == 0 else None
            config = self.config(point, seed, **keys)
            results.append(train_and_validate(config, saved=False, run_id=f"{name}-s{seed}", callback_fn=callback))
        return Outcome(statistics.fmean(map(_score, results)), _details(results))

    def test(self, point: Mapping[str, Any], name: str) -> list[RunResult]:
        """Train the chosen point again, once for each seed, and evaluate it on the test split: the only time that is done.

        Args:
            point: values of the tuned keys.
            name: of its trial; its records and checkpoints lie in ``winner/<name>/``.

        Raises:
            HNLMError: anything the user can fix.
        """
        place = f"winner/{name}"
        folders = {**self._folders(place), "checkpoint_dir": str(Path(self.folder) / place)}
        return [run(self.config(point, seed, show_progress=False, **folders)) for seed in self.seeds]

    def _folders(self, results: str) -> dict[str, str]:
        folder = Path(self.folder)
        return {
            "results_dir": str(folder / results),
            "log_dir": str(folder / "log"),
            "checkpoint_dir": str(folder / "checkpoints"),
        }


def _score(result: RunResult) -> float:
    if result.best_valid_score is None:
        raise ConfigError("no epoch was evaluated on validation: set epochs and eval_step so that one is")
    return float(result.best_valid_score)


def _details(results: list[RunResult]) -> dict[str, Any]:
    metrics = [result.best_valid_result or {} for result in results]
    return {
        "scores": [_score(result) for result in results],
        "valid": {name: statistics.fmean(float(each[name]) for each in metrics) for name in metrics[0]},
        "epochs": [result.record["epochs"] for result in results],
        "best_epoch": [result.record["best_epoch"] for result in results],
    }
