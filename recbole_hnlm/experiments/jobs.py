"""Running cells in processes, several at once, so that a failing cell does not stop the others."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from recbole_hnlm.experiments.processes import Child, end_children, finish_child, start_child
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recbole_hnlm.experiments.cells import Cell

__all__ = ["available_cores", "run_cells", "share_of", "worker_environment"]

Each = TypeVar("Each")

_WORKER = (sys.executable, "-m", "recbole_hnlm.experiments.worker")
_POLL_SECONDS = 0.05


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_environment(jobs: int, cores: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a cell's process: ``cores / jobs`` threads, or fewer where the user asks for fewer."""
    threads = max(1, cores // jobs)
    given = environment.get("OMP_NUM_THREADS", "")
    return {**environment, "OMP_NUM_THREADS": str(min(threads, int(given)) if given.isdecimal() and int(given) else threads)}


def share_of(cells: Sequence[Each], share: str | None) -> list[Each]:
    """Return the cells (or rows) of a share: ``2/3`` takes every third from the second on; None takes all.

    Raises:
        ConfigError: not of the form ``i/n`` with 1 <= i <= n.
    """
    if share is None:
        return list(cells)
    part, _, parts = share.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"only: expected a share such as 1/3, got {share!r}")
    return list(cells)[int(part) - 1 :: int(parts)]


def run_cells(folder: Path, cells: Sequence[Cell], jobs: int, done: int = 0) -> dict[str, str]:
    """Run cells and wait for them.

    Each has its log in ``log/<id>.log``; what a failed one printed, its traceback too, is in ``log/<id>.txt``. When this
    process is interrupted, the cells under way are ended; they continue from their last epoch next time.

    Args:
        folder: the comparison's folder.
        cells: those that are not finished.
        jobs: how many run at once.
        done: finished cells, for the progress bar.

    Returns:
        id to one line for every cell that failed.
    """
    failures: dict[str, str] = {}
    waiting = deque(cells)
    running: list[tuple[Cell, Child]] = []
    environment = worker_environment(jobs, available_cores(), os.environ)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    shown = all(cell.show_progress for cell in cells)
    with tqdm(total=done + len(cells), initial=done, desc="cells", unit="cell", disable=not shown) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.popleft()
                    running.append((cell, _start(folder, cell, jobs, environment)))
                finished = [job for job in running if job[1].process.poll() is not None]
                for job in finished:
                    running.remove(job)
                    _finish(*job, failures)
                    bar.update()
                if not finished:
                    time.sleep(_POLL_SECONDS)
        finally:
            end_children(child for _, child in running)
    return failures


def _log(folder: Path, cell: Cell) -> Path:
    return folder / "log" / f"{cell.id}.txt"


def _start(folder: Path, cell: Cell, jobs: int, environment: Mapping[str, str]) -> Child:
    log = _log(folder, cell)
    log.unlink(missing_ok=True)
    return start_child([*_WORKER, str(folder), str(jobs)], cell.to_json(), log, environment)


def _finish(cell: Cell, child: Child, failures: dict[str, str]) -> None:
    # Of a cell that ended well the run's own log, log/<id>.log, says the same.
    said = finish_child(child)
    if child.process.returncode != 0:
        failures[cell.id] = said
        tqdm.write(f"failed: {cell.id}: {said}", file=sys.stderr)
