"""Running cells in processes, several at once, so that a failing cell does not stop the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

from tqdm import tqdm

from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recbole_hnlm.experiments.cells import Cell

__all__ = ["available_cores", "last_line", "run_cells", "share_of", "worker_environment"]

Each = TypeVar("Each")

_WORKER = (sys.executable, "-m", "recbole_hnlm.experiments.worker")
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0


class _Job(NamedTuple):
    cell: Cell
    process: subprocess.Popen[bytes]
    output: IO[bytes]


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


def last_line(output: str, code: int) -> str:
    """Return in one line why a process failed: its last line, or its exit code if it printed nothing."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "no output"
    return said if code > 0 else f"killed by signal {-code} (last output: {said})"


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
    waiting, running = deque(cells), list[_Job]()
    environment = worker_environment(jobs, available_cores(), os.environ)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    shown = all(cell.show_progress for cell in cells)
    with tqdm(total=done + len(cells), initial=done, desc="cells", unit="cell", disable=not shown) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(folder, waiting.popleft(), jobs, environment))
                finished = [job for job in running if job.process.poll() is not None]
                for job in finished:
                    running.remove(job)
                    _finish(folder, job, failures)
                    bar.update()
                if not finished:
                    time.sleep(_POLL_SECONDS)
        finally:
            _end(running)
    return failures


def _log(folder: Path, cell: Cell) -> Path:
    return folder / "log" / f"{cell.id}.txt"


def _start(folder: Path, cell: Cell, jobs: int, environment: Mapping[str, str]) -> _Job:
    output = _log(folder, cell).open("wb")
    command = [*_WORKER, str(folder), str(jobs)]
    process = subprocess.Popen(  # noqa: S603 - this interpreter and this package
        command, bufsize=0, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)
    )
    if process.stdin is not None:
        # The pipe stays open: its end tells the worker that this process is gone. One that dies at once is reported by its
        # output, not by the broken pipe.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(cell.to_json()).encode() + b"\n")
    return _Job(cell, process, output)


def _close(job: _Job) -> None:
    job.output.close()
    if job.process.stdin is not None:
        job.process.stdin.close()


def _finish(folder: Path, job: _Job, failures: dict[str, str]) -> None:
    _close(job)
    if job.process.returncode == 0:
        # The run's own log, log/<id>.log, says the same.
        _log(folder, job.cell).unlink()
    else:
        output = _log(folder, job.cell).read_text(encoding="utf-8", errors="replace")
        failures[job.cell.id] = last_line(output, job.process.returncode)
        tqdm.write(f"failed: {job.cell.id}: {failures[job.cell.id]}", file=sys.stderr)


def _end(running: Sequence[_Job]) -> None:
    for job in running:
        job.process.terminate()
    for job in running:
        try:
            job.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            job.process.kill()
            job.process.wait()
        _close(job)
