"""Who works on a trial, and whether that process still lives: Optuna's journal has no heartbeat, so a trial carries its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["Pulse", "is_alive", "this_worker"]

# Linux derives a process's start from the boot time, which clock corrections move a little.
_START_TOLERANCE_SECONDS = 2.0
PULSE_SECONDS = 60.0
# Another machine's worker counts as gone after ten missed pulses, which also covers clocks that disagree.
_SILENCE_SECONDS = 600.0


def this_worker() -> dict[str, Any]:
    """Return host, process id and start time of this process: together no other process has them."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process.create_time()}


def is_alive(worker: Mapping[str, Any], seen: float, now: float | None = None) -> bool:
    """Whether a trial's worker still runs.

    Args:
        worker: as :func:`this_worker`.
        seen: when it last gave a sign of life, in seconds since the epoch; decides for workers of other machines alone.
        now: the present time; None asks the clock.
    """
    if worker["host"] != socket.gethostname():
        return (time.time() if now is None else now) - seen < _SILENCE_SECONDS
    try:
        process = psutil.Process(int(worker["pid"]))
        started, status = process.create_time(), process.status()
    except psutil.Error:
        return False
    return status != psutil.STATUS_ZOMBIE and abs(started - float(worker["started"])) < _START_TOLERANCE_SECONDS


class Pulse:
    """Calls a function every minute while its block runs, so that other machines see that this process lives.

    Args:
        beat: called in a thread; an error of its own ends the pulse alone.
        seconds: time between two calls.
    """

    def __init__(self, beat: Callable[[], None], seconds: float = PULSE_SECONDS) -> None:
        self._beat, self._seconds, self._over = beat, seconds, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        # A failing storage ends the trial itself at its next report.
        with suppress(Exception):
            while not self._over.wait(self._seconds):
                self._beat()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
