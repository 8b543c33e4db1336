"""What a report is made of, read from files: a run's record, the folder of a comparison, the folder of a search."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.evaluator.statistics import PairedTest
from recbole_hnlm.experiments.cells import Cell
from recbole_hnlm.experiments.methods import Method
from recbole_hnlm.experiments.store import FinishedCell, read_cell
from recbole_hnlm.experiments.summary import Comparison, Row, Table
from recbole_hnlm.utils.errors import ArtifactError, DataError
from recbole_hnlm.utils.files import BROKEN_ARRAY, read_json
from recbole_hnlm.utils.results import read_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["ComparisonInput", "RunInput", "TuningInput", "lists_of", "read_input"]

_AGAIN = "run the same compare command again: finished cells are reused"


@dataclass(frozen=True)
class RunInput:
    """One run.

    Attributes:
        path: its results file.
        record: content of it.
        analyses: what ``recbole-hnlm analyse`` wrote of it; at most one.
        energy: rows of ``emissions.csv`` beside it, which codecarbon writes.
    """

    path: Path
    record: dict[str, Any]
    analyses: list[dict[str, Any]] = field(default_factory=list)
    energy: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ComparisonInput:
    """A comparison.

    Attributes:
        folder: of the comparison.
        table: means and tests.
        cells: finished cells by label of their row, in the order of seeds.
        missing: ids of cells that are not finished.
        failures: reason by id.
        grid: what tuning tried, or None.
        command: the command that made it; empty where it is not known.
        analyses: as for a run, at most one for each cell.
        energy: as for a run.
    """

    folder: Path
    table: Table
    cells: dict[str, list[FinishedCell]]
    missing: list[str]
    failures: dict[str, str]
    grid: dict[str, Any] | None
    command: str
    analyses: list[dict[str, Any]] = field(default_factory=list)
    energy: list[dict[str, str]] = field(default_factory=list)

    def valid_means(self) -> dict[str, float | None]:
        """Return each method's mean validation score over seeds; None where one was never evaluated."""
        found: dict[str, float | None] = {}
        for label, cells in self.cells.items():
            scores = [cell.record["best_valid_score"] for cell in cells]
            found[label] = float(np.mean(scores)) if scores and None not in scores else None
        return found


@dataclass(frozen=True)
class TuningInput:
    """A search.

    Attributes:
        folder: of the search.
        summary: ``tune.json``.
        trials: rows of ``trials.csv``.
        best: ``best.yaml``; empty where no trial finished.
        winner: records of the winner, by seed; empty before it is evaluated.
        energy: as for a run.
    """

    folder: Path
    summary: dict[str, Any]
    trials: list[dict[str, str]]
    best: str
    winner: list[dict[str, Any]]
    energy: list[dict[str, str]] = field(default_factory=list)


def read_input(place: str | Path, analysis: str | Path | None = None) -> RunInput | ComparisonInput | TuningInput:
    """Read what a report is to be made of.

    Args:
        place: ``results/<run_id>.json``, or a folder that ``compare`` or ``tune`` wrote.
        analysis: the folder that ``analyse`` wrote; None looks for ``analysis`` beside the results file and one folder up, or
            in the comparison's folder.

    Raises:
        DataError: there is nothing at that place, or nothing that a report is made of.
        ArtifactError: a file is damaged.
    """
    path = Path(place)
    if path.is_file():
        return _read_run(path, analysis)
    if not path.is_dir():
        raise DataError(f"{path} does not exist: give results/RUN_ID.json, or the --out folder of compare or tune")
    if (path / "results.json").is_file():
        return _read_comparison(path, analysis)
    if (path / "tune.json").is_file():
        return _read_tuning(path)
    raise DataError(
        f"{path} holds neither results.json of compare nor tune.json of tune: give results/RUN_ID.json, or the --out folder of "
        "compare or tune that has ended"
    )


def _read_run(path: Path, analysis: str | Path | None) -> RunInput:
    if path.suffix != ".json":
        raise DataError(f"{path} is not a results file: give results/RUN_ID.json, or the --out folder of compare or tune")
    record = read_result(path).record
    absent = [name for name in ("model", "dataset", "config", "test_result") if name not in record]
    if absent:
        raise ArtifactError(f"{path} is not the record of a run, it has no {', '.join(absent)}; run again")
    places = [path.parent / "analysis", path.parent.parent / "analysis"] if analysis is None else [Path(analysis)]
    return RunInput(path, record, _read_analyses(places, [str(record["run_id"])]), _read_energy(path.parent))


def _read_analyses(places: Sequence[Path], run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Read ``<place>/<run_id>/analysis.json`` of the runs that have one, at the first place that has any."""
    again = "run recbole-hnlm analyse again"
    for place in places:
        files = [place / name / "analysis.json" for name in run_ids if (place / name / "analysis.json").is_file()]
        found = [read_json(file, again) for file in files]
        for file, content in zip(files, found, strict=True):
            if not isinstance(content, dict) or content.get("run_id") != file.parent.name or "groups" not in content:
                raise ArtifactError(f"{file} is no analysis of {file.parent.name}; {again}")
        if found:
            return found
    return []


def _read_energy(folder: Path) -> list[dict[str, str]]:
    file = folder / "emissions.csv"
    return _read_csv(file) if file.is_file() else []


def _read_csv(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [{str(key): value or "" for key, value in row.items()} for row in csv.DictReader(stream)]
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{file} cannot be read ({error}): run the command that wrote it again") from error


def _read_comparison(folder: Path, analysis: str | Path | None) -> ComparisonInput:
    file = folder / "results.json"
    results = read_json(file, _AGAIN)
    if not isinstance(results, dict) or not isinstance(results.get("table"), dict):
        raise DataError(f"{file} has no table, since no cell has finished: {_AGAIN}")
    labels = results.get("labels")
    if not isinstance(labels, dict):
        raise ArtifactError(f"{file} does not say which cell is of which method, as of another version; {_AGAIN}")
    try:
        table = _table(results["table"])
        missing, failures = [str(each) for each in results["missing"]], dict(results["failures"])
        roles = {row.label: row.role for rows in table.rows.values() for row in rows}
        cells: dict[str, list[FinishedCell]] = {label: [] for label in roles}
        for identity, label in labels.items():
            if identity not in missing:
                method = Method(label, None, label, role=roles[label])
                cells[label].append(read_cell(folder, Cell(identity, method, 0, 0, {}, table.dataset, ())))
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged or of another version ({error}); {_AGAIN}") from error
    return ComparisonInput(
        folder=folder,
        table=table,
        cells=cells,
        missing=missing,
        failures=failures,
        grid=results.get("grid"),
        command=str(results.get("command") or ""),
        analyses=_read_analyses([folder / "analysis" if analysis is None else Path(analysis)], list(labels)),
        energy=_read_energy(folder),
    )


def _table(content: Mapping[str, Any]) -> Table:
    """Undo ``Table.to_json``."""

    def rows(each: Mapping[str, Any]) -> dict[str, list[Row]]:
        return {metric: [_row(row) for row in some] for metric, some in each.items()}

    known = {name: content[name] for name in ("dataset", "metrics", "users", "notes")}
    return Table(rows=rows(content["rows"]), rival_rows=rows(content["rival_rows"]), **known)


def _row(content: Mapping[str, Any]) -> Row:
    values = {each.name: content[each.name] for each in fields(Row)}
    if (tests := values["comparison"]) is not None:
        values["comparison"] = Comparison(
            PairedTest(**tests["over_users"]), PairedTest(**tests["over_seeds"]), dict(tests["adjusted"])
        )
    return Row(**values)


def lists_of(folder: Path, cell: FinishedCell) -> npt.NDArray[np.int32] | None:
    """Return the recommended items of a cell's users, internal ids ``[U, K]``; None where the cell has none of them."""
    try:
        with np.load(folder / "cells" / f"{cell.cell.id}.npz", allow_pickle=False) as arrays:
            lists: npt.NDArray[np.int32] | None = arrays["lists"] if "lists" in arrays.files else None
    except BROKEN_ARRAY as error:
        raise ArtifactError(f"cell {cell.cell.id} in {folder} cannot be read: {error}; {_AGAIN}") from error
    return lists


def _read_tuning(folder: Path) -> TuningInput:
    again = "run the same tune command again: finished trials are kept"
    summary = read_json(folder / "tune.json", again)
    absent = (
        [name for name in ("metric", "trials", "best", "space") if name not in summary] if isinstance(summary, dict) else [""]
    )
    if absent:
        raise ArtifactError(f"{folder / 'tune.json'} is damaged or of another version; {again}")
    best = folder / "best.yaml"
    winner = [read_result(_winner_file(folder, Path(each))).record for each in summary.get("winner") or ()]
    return TuningInput(
        folder=folder,
        summary=summary,
        trials=_read_csv(folder / "trials.csv"),
        best=best.read_text(encoding="utf-8") if best.is_file() else "",
        winner=winner,
        energy=_read_energy(folder),
    )


def _winner_file(folder: Path, named: Path) -> Path:
    """Return the record of a winner: where the search left it, or below its folder, which may have been moved since."""
    return named if named.is_file() else folder / "winner" / named.parent.name / named.name
