"""Processes that each do a piece of work: told what by one line, heard through a file, ended when nobody waits for them."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Child", "end_children", "finish_child", "last_line", "start_child"]

_PATIENCE_SECONDS = 10.0


class Child(NamedTuple):
    """A started process.

    Attributes:
        process: the process.
        output: the open file that takes what it prints.
        log: that file's path.
    """

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    log: Path


def start_child(command: Sequence[str], request: Mapping[str, Any], log: Path, environment: Mapping[str, str]) -> Child:
    """Start a process and tell it what to do by a line of JSON; what it prints is added to ``log``."""
    output = log.open("ab")
    process = subprocess.Popen(  # noqa: S603 - this interpreter and this package
        command, bufsize=0, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)
    )
    if process.stdin is not None:
        # The pipe stays open: its end tells the process that this one is gone. One that dies at once is reported by its
        # output, not by the broken pipe.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
    return Child(process, output, log)


def last_line(output: str, code: int) -> str:
    """Return in one line why a process failed: its last line, or its exit code if it printed nothing."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "no output"
    return said if code > 0 else f"killed by signal {-code} (last output: {said})"


def finish_child(child: Child) -> str:
    """Close an ended process; returns what it said last. The output of one that ended well is removed."""
    _close(child)
    said = last_line(child.log.read_text(encoding="utf-8", errors="replace"), child.process.returncode)
    if child.process.returncode == 0:
        child.log.unlink()
    return said


def end_children(running: Iterable[Child]) -> None:
    """End processes that are still at work, and wait for them; one that does not end in time is killed."""
    children = list(running)
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        _close(child)


def _close(child: Child) -> None:
    child.output.close()
    if child.process.stdin is not None:
        child.process.stdin.close()
