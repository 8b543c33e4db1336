"""Where TensorBoard's files go: RecBole's trainers make ``log_tensorboard`` in the current directory, whatever the keys say."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.given_paths import can_be_written

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["tensorboard_can_write"]

_FOLDER = Path("log_tensorboard")
_logger = logging.getLogger(__name__)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    # contextlib.chdir came with Python 3.11.
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def tensorboard_can_write(trainer: Any, config: Any) -> Iterator[None]:
    """Let a trainer be made where the current directory cannot be written: TensorBoard's files then go below ``log_dir``.

    Args:
        trainer: is made inside the block.
        config: read for ``log_dir``; ``checkpoint_dir`` is absolute inside the block, where the current directory is another.
    """
    if can_be_written(_FOLDER):
        yield
        return
    log_dir, given = Path(config["log_dir"]).absolute(), config["checkpoint_dir"]
    _logger.info("the current directory cannot be written: TensorBoard's files go to %s", log_dir / _FOLDER)
    log_dir.mkdir(parents=True, exist_ok=True)
    config["checkpoint_dir"] = str(Path(given).absolute())
    try:
        with _inside(log_dir):
            yield
            trainer.tensorboard.close()
        # A writer opens its file by the path that it was given, which is relative to the other directory.
        trainer.tensorboard = type(trainer.tensorboard)(str(log_dir / trainer.tensorboard.log_dir))
    finally:
        config["checkpoint_dir"] = given
