"""Tuning the rows of a table before its own cells are run: a search for each row, on validation, with the first seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.trial import TrialState

from recbole_hnlm.config.settings import asks_llm_again
from recbole_hnlm.experiments.cells import safe_name
from recbole_hnlm.experiments.grid import Choice, edge_note, grid_note, parse_scoped, point_text, points_of
from recbole_hnlm.experiments.jobs import share_of
from recbole_hnlm.experiments.plan import Row, grid_of, make_rows
from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import failures_of
from recbole_hnlm.experiments.space import Space, read_space_file, shipped_space
from recbole_hnlm.experiments.storage import JOURNAL
from recbole_hnlm.experiments.trial import TrialRun
from recbole_hnlm.experiments.tune import SHIPPED, own_point, plan_search
from recbole_hnlm.experiments.tune_checks import check_keys_of, check_values, llm_lines
from recbole_hnlm.experiments.tune_jobs import run_search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole_hnlm.experiments.grid import GridKey
    from recbole_hnlm.experiments.plan import PlanRequest
    from recbole_hnlm.experiments.search_plan import SearchPlan
    from recbole_hnlm.experiments.tune import SearchOptions

__all__ = ["RowSearch", "Tuned", "plan_rows", "tune_rows"]


class RowSearch(NamedTuple):
    """The search for a row's keys.

    Attributes:
        point: the row's only point, where there is nothing to search; otherwise None.
        plan: the search; None where there is nothing to search.
        run: what its trials have in common.
    """

    point: dict[str, Any] | None
    plan: SearchPlan | None
    run: TrialRun | None


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes:
        grid: the keys of the grid; empty where rows were tuned over spaces.
        how: one sentence on how rows were tuned over spaces; empty with a grid.
        choices: label to the row's choice; None for a row that is not tuned yet, or where every trial failed.
        mine: labels of the rows of this share.
    """

    grid: list[GridKey]
    how: str
    choices: dict[str, Choice | None]
    mine: list[str]

    @property
    def points(self) -> dict[str, dict[str, Any]]:
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
        metric = str(record["config"]["valid_metric"])
        notes = [grid_note(self.grid, metric) if self.grid else self.how.replace("METRIC", metric)]
        notes += edge_note(self.grid, self.points)
        failed = [f"{label} ({point})" for label, choice in self.choices.items() if choice for point in choice.failed]
        if failed:
            notes.append(f"Points that failed and were left out: {'; '.join(failed)}.")
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


def plan_rows(folder: Path, request: PlanRequest, options: SearchOptions) -> dict[str, RowSearch]:
    """Return the search of each row, by label, every point or probe checked before any work.

    Args:
        folder: the comparison's folder.
        request: what the command line says.
        options: how to search; every row has the same.

    Raises:
        ConfigError: anything that is wrong with names, keys or values.
    """
    grid = grid_of(request)
    return {row.method.label: _plan_row(folder, row, request, options, grid) for row in make_rows(request)}


def _plan_row(folder: Path, row: Row, request: PlanRequest, options: SearchOptions, grid: list[GridKey]) -> RowSearch:
    points: tuple[dict[str, Any], ...] | None = None
    if request.tune is None:
        # Points that differ in keys which the row does not read are one.
        distinct = {row.identity(point): point for point in reversed(points_of(grid, row.method))}
        points = tuple(reversed(distinct.values()))
        if len(points) == 1:
            return RowSearch(points[0], None, None)
        space = Space.of_choices({key: list(dict.fromkeys(point[key] for point in points)) for key in points[0]}, "grid")
    else:
        space = _space_of(row, request.tune)
    run = TrialRun(row.method.runs, request.dataset, request.config_files, row.keys, (row.seed,), "")
    if any(map(asks_llm_again, space.keys)):
        llm_lines(space, run.config, allow=request.allow_llm_keys)
    config = run.config(points[0] if points else space.probes()[0], row.seed)
    first = None if points else own_point(space, run)
    plan = plan_search(
        space, config, options, name=safe_name(row.method.label), folder="", points=points, first=first, seeds=(row.seed,)
    )
    # Other settings, another space or other code make another search, as they make other cells.
    content = {**plan.settings, "space": space.to_lines(), "split_seed": row.keys["split_seed"]}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    place = str(folder / "tuning" / f"{plan.name}-{digest}-{plan.code}")
    return RowSearch(None, plan.with_folder(place), run.with_folder(place))


def _space_of(row: Row, source: str) -> Space:
    """Return the keys to tune a row over: without those that it fixes, and those that nothing in it reads."""
    method = row.method
    space = shipped_space(method.model, method.runs) if source == SHIPPED else read_space_file(source)
    space = parse_scoped(space, method).without(list(method.keys))
    check_keys_of(space, row.given)
    return check_values(space, row.config, drop_unread=True)


def tune_rows(
    folder: Path, request: PlanRequest, share: str | None, options: SearchOptions, say: Callable[[str], None]
) -> tuple[Tuned, dict[str, str]]:
    """Search for the keys of every row of a share, or go on with it, and choose.

    Args:
        folder: the comparison's folder.
        request: what the command line says.
        share: ``I/N`` of the rows; None for all.
        options: how to search; every row has the same budget.
        say: prints a line.

    Returns:
        The outcome, and the reason for each row of this share where every trial failed.

    Raises:
        HNLMError: anything that is wrong with names, keys or values, at any point, or what no other point would change.
    """
    rows = plan_rows(folder, request, options)
    mine = share_of(list(rows), share)
    choices: dict[str, Choice | None] = {}
    failures: dict[str, str] = {}
    for label, row in rows.items():
        if row.plan is None or row.run is None:
            choices[label] = Choice(row.point or {}, {})
            continue
        search = None
        if label in mine:
            say(f"tuning {label}: {'; '.join(row.plan.space.to_lines())}")
            search = run_search(row.plan, row.run, options.jobs, label, say)
        elif (Path(row.plan.folder) / JOURNAL).is_file():
            search = Search(row.plan)
        choices[label] = choice_of(search) if search is not None else None
        failed = failures_of(search.trials()) if search is not None and choices[label] is None else {}
        if failed and label in mine:
            failures[label] = f"all {len(failed)} trials failed, the first with: {next(iter(failed.values()))}"
    how = f"Every row was tuned by {options.trials or 50} trials of {options.algo} over {_source(request)}: "
    how += "the point with the best METRIC on validation, with the first seed, holds for all seeds."
    return Tuned(grid_of(request), "" if request.tune is None else how, choices, mine), failures


def _source(request: PlanRequest) -> str:
    return "the shipped space of its model" if request.tune == SHIPPED else str(request.tune)


def choice_of(search: Search) -> Choice | None:
    """Return what a finished search chose: the highest validation score, the first of equals; None before it is over."""
    best = search.best()
    if best is None or not search.is_over():
        return None
    scores = {
        point_text(search.params(trial)): None if trial.state == TrialState.FAIL else trial.value
        for trial in search.counted()
        if "copy_of" not in trial.user_attrs
    }
    return Choice(search.params(best), scores)
