"""The record of a finished run: ``results/<run_id>.json``."""

from __future__ import annotations

import json
import re
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import read_json, replacing
from recbole_hnlm.utils.values import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["RunResult", "Stopwatch", "new_run_id", "read_result", "write_result"]


class Stopwatch:
    """Seconds per named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        run_id: name of the run and of its files.
        path: the JSON file.
        record: its content.
    """

    run_id: str
    path: Path
    record: dict[str, Any]

    @property
    def best_valid_score(self) -> float | None:
        """Best validation score, or None without validation."""
        return self.record["best_valid_score"]

    @property
    def best_valid_result(self) -> dict[str, float] | None:
        """Validation metrics of the best epoch by RecBole's names, or None without validation."""
        return self.record["best_valid_result"]

    @property
    def test_result(self) -> dict[str, float] | None:
        """Test metrics by RecBole's names, or None without a test split."""
        return self.record["test_result"]


def new_run_id(model: str, dataset: str) -> str:
    """Return ``<model>-<dataset>-<local time>-<random hex>``: unique even within one second, safe as a file name."""
    name = re.sub(r"[^\w-]+", "_", f"{model}-{dataset}")
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def write_result(folder: str | Path, record: Mapping[str, Any]) -> RunResult:
    """Write a record atomically as ``<folder>/<run_id>.json``.

    Args:
        folder: made when absent.
        record: must hold ``run_id``; made plain, and URLs in it lose their passwords and keys.

    Raises:
        ArtifactError: the file cannot be written.
    """
    content = _redacted(plain(dict(record)))
    path = Path(folder) / f"{content['run_id']}.json"
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return RunResult(run_id=content["run_id"], path=path, record=content)


def read_result(path: str | Path) -> RunResult:
    """Read what :func:`write_result` wrote.

    Raises:
        ArtifactError: it is absent, damaged, or no record of a run.
    """
    file, remedy = Path(path), "run again"
    content = read_json(file, remedy)
    if not isinstance(content, dict) or not isinstance(content.get("run_id"), str):
        raise ArtifactError(f"{file} is not the record of a run; {remedy}")
    return RunResult(run_id=content["run_id"], path=file, record=content)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value
