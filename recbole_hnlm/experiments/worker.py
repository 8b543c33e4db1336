"""One cell in its own process: ``python -m recbole_hnlm.experiments.worker FOLDER JOBS``; one line of JSON on its input."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.config import Config
from recbole_hnlm.evaluator.per_user import values_per_user
from recbole_hnlm.experiments.cells import Cell, code_digest
from recbole_hnlm.experiments.methods import metrics_of
from recbole_hnlm.experiments.store import write_cell
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.trainer.checkpoint import read_checkpoint
from recbole_hnlm.trainer.resumable import LAST_SUFFIX, best_beside, read_resumable
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, ArtifactError, DataError, HNLMError
from recbole_hnlm.utils.logger import quiet_recbole
from recbole_hnlm.utils.showing import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["end_with_parent", "main", "run_cell"]

_LOGGER = logging.getLogger("recbole_hnlm")


def run_cell(folder: Path, cell: Cell, at_once: int = 1) -> None:
    """Train and test a cell, continuing where a killed one stopped, and write its files; checkpoints are removed at the end.

    Args:
        folder: the comparison's folder.
        cell: what to run.
        at_once: cells that share the machine, for the record.

    Raises:
        HNLMError: anything the user can fix.
    """
    checkpoints = folder / "checkpoints" / cell.id
    keys = {
        **cell.keys,
        "checkpoint_dir": str(checkpoints),
        "results_dir": str(checkpoints),
        "log_dir": str(folder / "log"),
        "show_progress": False,
    }
    last = checkpoints / f"{cell.id}{LAST_SUFFIX}"
    if _can_continue(last, cell.id):
        keys["resume"] = str(last)
    config = Config(cell.method.runs, cell.dataset, list(cell.config_files), keys, strict=False)
    if cell.code and cell.code != code_digest(config):
        raise ArtifactError("the code was changed while the comparison ran: start it again, so that one state makes all cells")
    kept: dict[str, Any] = {}

    def keep(trainer: Any, test: Any) -> None:
        rows = trainer.eval_collector.latest_topk
        if rows is None:
            raise DataError(f"dataset {config['dataset']}: the test split is empty; loosen the filters or eval_args split")
        dataset = test._dataset
        users = dataset.id2token(dataset.uid_field, np.asarray(test.uid_list))
        values = {f"{name}@{k}": values_per_user(config, rows, name, k) for name, k in metrics_of(config)}
        lists = trainer.eval_collector.latest_items.numpy().astype(np.int32)
        kept.update(users=np.asarray(users, dtype=np.str_), values=values, lists=lists)

    result = run(config, run_id=cell.id, on_test=keep)
    record = {**result.record, "label": cell.method.label, "cells_at_once": at_once}
    write_cell(folder, cell.id, record, kept["users"], kept["values"], kept["lists"])
    shutil.rmtree(checkpoints, ignore_errors=True)


def _can_continue(last: Path, identity: str) -> bool:
    """Whether both checkpoints of a killed cell are there, whole and its own; with one line, and a new start, where not."""
    files = (last, best_beside(last))
    if not all(file.is_file() for file in files):
        return False
    try:
        read_resumable(last)
        for file in files:
            if (found := read_checkpoint(file).get("run_id")) != identity:
                raise ArtifactError(f"checkpoint {file} is of run {shown(found)}, expected {identity}")
    except ArtifactError as error:
        _LOGGER.warning("the cell is trained from the start: %s", error)
        return False
    return True


def end_with_parent() -> None:
    """Wait for the end of standard input, which the parent holds open while it lives, and end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str]) -> int:
    """Run the cell that the first line of standard input describes; end where the input does, since the parent is gone then.

    Args:
        argv: the comparison's folder, and how many cells run at once.

    Returns:
        0, or 2 after one line ``error: ...`` on standard error for what the user can fix.
    """
    quiet_recbole()
    try:
        cell = Cell.from_json(json.loads(sys.stdin.readline()))
        threading.Thread(target=end_with_parent, daemon=True).start()
        run_cell(Path(argv[0]), cell, int(argv[1]))
    except HNLMError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return USER_ERROR_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
