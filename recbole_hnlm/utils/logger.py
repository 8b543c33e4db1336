"""Logging of a run: to one file per run and to the terminal, with secrets blanked out.

Handlers are put on the root logger, which RecBole logs to, and those of an earlier run in the same process are removed
first; ``logging.basicConfig`` would keep writing into the first run's file.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["LIBRARIES_MADE_QUIET", "close_logger", "init_logger", "quiet_recbole"]

_ANSI = re.compile(r"\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")
_OWN = "recbole_hnlm_handler"
_LEAST_SECRET_CHARS = 4  # blanking out a shorter one would blank out words
#: Libraries that log every request or every loaded file at INFO.
LIBRARIES_MADE_QUIET = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "openai", "urllib3"),
    *("sentence_transformers", "transformers", "filelock"),
)


class _Formatter(logging.Formatter):
    def __init__(self, *, colour: bool, secrets: Sequence[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s  %(message)s", "%d %b %H:%M:%S")
        self._colour = colour
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record), self._secrets)
        return text if self._colour else _ANSI.sub("", text)


class _RunNameHandler(logging.NullHandler):
    """Names a run for RecBole, which takes TensorBoard's folder name from the first handler with a ``baseFilename``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.baseFilename = name  # the attribute's name in logging.FileHandler


def _level(state: Any) -> int:
    level = logging.getLevelName(str(state or "INFO").upper())
    return level if isinstance(level, int) else logging.INFO


def quiet_recbole() -> None:
    """Silence the deprecation warnings that RecBole 1.2.1 causes in pandas and PyTorch on every run.

    The user cannot act on them. Call this at the edge of a program, not in a library.
    """
    for category in (FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")


def close_logger(keep: Collection[logging.Handler] = ()) -> None:
    """Remove and close the handlers that :func:`init_logger` added, but for those to keep."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if getattr(handler, _OWN, False) and handler not in keep]:
        root.removeHandler(handler)
        handler.close()


def init_logger(config: Any) -> Path:
    """Start the log of a run, to ``<log_dir>/<run_id>.log`` and to standard error.

    Args:
        config: read for ``run_id``, ``log_dir``, ``state`` (level), ``local_rank`` (only the first rank writes the file) and
            ``llm_api_key_env``, whose value is blanked out wherever it would appear.

    Returns:
        path of the log file.

    Raises:
        ArtifactError: the folder or the file cannot be written.
    """
    close_logger()
    path = Path(config["log_dir"]) / f"{config['run_id']}.log"
    key = os.environ.get(str(config["llm_api_key_env"]), "").strip()
    # A key of several lines is refused; its lines are blanked out all the same.
    secrets = [line for line in {key, *key.splitlines()} if len(line) >= _LEAST_SECRET_CHARS]
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if config["local_rank"]:
        handlers.append(_RunNameHandler(str(path)))
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(f"cannot write the log file {path}: {error}; choose another --log_dir") from error
    root, level = logging.getLogger(), _level(config["state"])
    root.setLevel(level)
    for handler in handlers:
        is_terminal = type(handler) is logging.StreamHandler and sys.stderr.isatty()
        handler.setFormatter(_Formatter(colour=is_terminal, secrets=secrets))
        handler.setLevel(level)
        setattr(handler, _OWN, True)
        root.addHandler(handler)
    for name in LIBRARIES_MADE_QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    return path
