"""Tuning rows over a grid before the table's own cells are run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.grid import Choice, GridKey, choose, edge_note, grid_note, point_text
from recbole_hnlm.experiments.jobs import share_of
from recbole_hnlm.experiments.plan import grid_of, make_trials
from recbole_hnlm.experiments.store import is_finished, read_cell
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from recbole_hnlm.experiments.cells import Cell
    from recbole_hnlm.experiments.plan import PlanRequest

__all__ = ["Tuned", "tune_rows"]


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes:
        grid: the keys that were tuned over.
        choices: label to the row's choice; None for a row whose points are not all finished yet, or all failed.
        mine: labels of the rows of this share.
    """

    grid: list[GridKey]
    choices: dict[str, Choice | None]
    mine: list[str]

    @property
    def points(self) -> dict[str, dict[str, str]]:
        """The chosen point of each row that has one, by label."""
        return {label: choice.point for label, choice in self.choices.items() if choice is not None}

    def chosen(self) -> dict[str, str]:
        """Return each row's point as text, by label."""
        return {label: point_text(point) for label, point in self.points.items()}

    def notes(self, record: Mapping[str, Any]) -> list[str]:
        """Return what a reader of the table must know.

        Args:
            record: that of any cell, for the name of the validation metric.
        """
        notes = [grid_note(self.grid, str(record["config"]["valid_metric"]))]
        notes += edge_note(self.grid, self.points)
        failed = [f"{label} ({point})" for label, choice in self.choices.items() if choice for point in choice.failed]
        if failed:
            notes.append(f"Points of the grid that failed and were left out: {'; '.join(failed)}.")
        absent = [label for label, choice in self.choices.items() if choice is None]
        if absent:
            notes.append(f"Rows that are not tuned yet, or failed at every point, are left out: {', '.join(absent)}.")
        return notes

    def to_json(self) -> dict[str, Any]:
        """Return plain values: each row's chosen point and the validation score of every point."""
        return {
            label: None if choice is None else {"chosen": choice.point, "valid_scores": choice.scores}
            for label, choice in self.choices.items()
        }


def tune_rows(
    folder: Path, request: PlanRequest, share: str | None, run: Callable[[Sequence[Cell]], None], failures: Mapping[str, str]
) -> Tuned:
    """Run every point of every row of a share with the first seed, and choose.

    Args:
        folder: the comparison's folder.
        request: what the command line says.
        share: ``I/N`` of the rows; None for all.
        run: runs those of the cells that are not finished.
        failures: id to the reason of cells that failed; ``run`` adds to it.

    Raises:
        ConfigError: anything that is wrong with names, keys or values, at any point, or a cell without a validation score.
    """
    trials = make_trials(request)
    mine = share_of(list(trials), share)
    several = [label for label, row in trials.items() if len(row) > 1]
    run([cell for label in several if label in mine for _, cell in trials[label]])
    scores = {}
    for cell in (cell for label in several for _, cell in trials[label] if is_finished(folder, cell)):
        score = read_cell(folder, cell).record["best_valid_score"]
        if score is None:
            raise ConfigError(
                f"grid: {cell.method.label} was never evaluated on validation; set eval_step and epochs so that it is"
            )
        scores[cell.id] = float(score)
    return Tuned(grid_of(request), {label: choose(row, scores, list(failures)) for label, row in trials.items()}, mine)
