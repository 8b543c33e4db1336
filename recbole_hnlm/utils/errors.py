"""The errors that a user can cause and fix.

Each carries one line: what was found, what was expected, how to fix it. The command line prints that line and exits with
code 2 (:data:`USER_ERROR_EXIT_CODE`); everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

__all__ = [
    "USER_ERROR_EXIT_CODE",
    "ArtifactError",
    "BackendError",
    "ConfigError",
    "DataError",
    "HNLMError",
    "MissingDependencyError",
    "out_of_memory",
]

USER_ERROR_EXIT_CODE = 2


class HNLMError(Exception):
    """Base class of every error that is reported as one line with exit code 2."""


class ConfigError(HNLMError):
    """A key, a value or a combination of values that cannot be used."""


class DataError(HNLMError):
    """A dataset file that is missing, unreadable or lacks what a stage needs."""


class ArtifactError(HNLMError):
    """A stored artefact that is missing, corrupt, of another dataset, or that cannot be written."""


class BackendError(HNLMError):
    """A language model or server that cannot be loaded, reached, or does not answer usefully."""


class MissingDependencyError(HNLMError):
    """An optional package that a chosen option needs; the message names the extra to install."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted: Python's, NumPy's, or PyTorch's on a CPU or a GPU."""
    text = str(error)
    of_torch = isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
    return isinstance(error, MemoryError) or of_torch
