"""Paths that a user gives: looked at before any work, and refused in one line that says what is there and what is expected."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.showing import shown

if TYPE_CHECKING:
    from recbole_hnlm.utils.errors import HNLMError

__all__ = ["can_be_written", "input_file", "is_file", "named", "output_file", "output_folder", "path_fault", "user_path"]

_LONGEST_PATH = 200
# Nothing is there, or what is there is no folder and has nothing below it.
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def named(path: str | Path) -> str:
    """Write a path for a message: as it is, unless it is long or has signs that a terminal would obey."""
    text = str(path)
    return text if len(text) <= _LONGEST_PATH and text.isprintable() else shown(text)


def user_path(given: str | Path) -> Path:
    """Return a path with ``~`` read as the home folder.

    Raises:
        ConfigError: it is empty, or ``~`` stands for nobody.
    """
    if not str(given).strip():
        raise ConfigError("is empty")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{named(given)}: there is no user whose home folder it could mean; write the path in full"
        ) from error


def _mode(path: Path) -> int | None:
    """Return the mode of what is at a path, or None where nothing is.

    Raises:
        ConfigError: why the system cannot tell, such as a loop of symbolic links or a name that is too long.
    """
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _ABSENT and not path.is_symlink():
            return None
        reason = "it is a symbolic link to nothing" if isinstance(error, FileNotFoundError) else _reason(error)
        raise ConfigError(f"{named(path)} cannot be used: {reason}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def path_fault(given: str | Path) -> str | None:
    """Say why nothing can be at a path, as of a loop of symbolic links or a name that is too long; None where something can."""
    try:
        _mode(user_path(given))
    except ConfigError as error:
        return str(error)
    return None


def is_file(given: str | Path) -> bool:
    """Whether a path, with ``~`` read as the home folder, is that of a file; false too where nothing can be."""
    return path_fault(given) is None and user_path(given).is_file()


def input_file(
    given: str | Path,
    what: str,
    expected: str = "the path of a file",
    error: type[HNLMError] = ConfigError,
    *,
    regular: bool = False,
) -> Path:
    """Return the path of a file that can be read, with ``~`` read as the home folder.

    Args:
        given: what the user wrote.
        what: the option or key, or what the file is; begins the error's line.
        expected: ends the error's line.
        error: its class.
        regular: whether pipes and devices, such as ``/dev/stdin``, are refused too.

    Raises:
        HNLMError: nothing is there, a folder is, or it cannot be read.
    """
    try:
        path = user_path(given)
        mode = _mode(path)
    except ConfigError as fault:
        raise error(f"{what} {fault}; expected {expected}") from fault
    found = None
    if mode is None:
        found = f"does not exist (looked for {named(path.absolute())})"
    elif stat.S_ISDIR(mode):
        found = "is a folder, not a file"
    elif regular and not stat.S_ISREG(mode):
        found = "is no regular file"
    elif not os.access(path, os.R_OK):
        found = "may not be read: check its permissions"
    if found:
        raise error(f"{what} {named(given)} {found}; expected {expected}")
    return path


def output_folder(given: str | Path, what: str, error: type[HNLMError] = ConfigError) -> Path:
    """Return the path of a folder that is there, or can be made, and can be written; nothing is left behind by the check.

    Args:
        given: what the user wrote.
        what: the option or key; begins the error's line.
        error: its class.

    Raises:
        HNLMError: a file is in the way, or the system refuses a file there.
    """
    try:
        path = user_path(given)
        there = path
        while (mode := _mode(there)) is None and there != there.parent:
            there = there.parent
        if mode is not None and not stat.S_ISDIR(mode):
            raise ConfigError(f"{named(path)} cannot be a folder: {named(there)} is a file")
        _try_to_write(there, path)
    except ConfigError as fault:
        raise error(f"{what} {fault}; choose a folder that can be written") from fault
    return path


def can_be_written(folder: str | Path) -> bool:
    """Whether a folder is there, or can be made, and can be written."""
    try:
        output_folder(folder, "")
    except ConfigError:
        return False
    return True


def _try_to_write(folder: Path, wanted: Path) -> None:
    """Write and remove a file: permissions, read-only systems and folders of the system's own refuse in different ways."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        if folder == wanted:
            return
        # Names that are too long show when they are looked up.
        for part in wanted.relative_to(folder).parts:
            _mode(folder / part)
    except OSError as error:
        raise ConfigError(f"{named(wanted)} cannot be written: {_reason(error)}") from error


def output_file(given: str | Path, what: str, error: type[HNLMError] = ConfigError) -> Path:
    """Return the path of a file that is there or can be made; its folder is one as of :func:`output_folder`.

    Args:
        given: what the user wrote.
        what: the option or key; begins the error's line.
        error: its class.

    Raises:
        HNLMError: a folder is there, or its folder cannot be written.
    """
    try:
        path = user_path(given)
        mode = _mode(path)
    except ConfigError as fault:
        raise error(f"{what} {fault}; choose another file") from fault
    if mode is not None and stat.S_ISDIR(mode):
        raise error(f"{what} {named(given)} is a folder, expected the name of a file")
    output_folder(path.parent, what, error)
    return path
