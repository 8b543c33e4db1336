"""What several verbs share: options, their values, and printing. Imports nothing heavy, so that light verbs stay quick."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from recbole_hnlm.utils.given_paths import is_file

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["KEYS_HELP", "add_config_options", "add_report_option", "config_files", "say"]

_PIPE_EXIT_CODE = 141

KEYS_HELP = (
    "Every key of RecBole and of recbole-hnlm can be given as --key=value or --key value; lists as [a,b] or a,b. "
    "An unknown key is an error that names the nearest valid one."
)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which configuration is meant."""
    parser.add_argument("--model", help="name of the model; `model:` in YAML works too")
    parser.add_argument("--dataset", help="name of the dataset; `dataset:` in YAML works too")
    parser.add_argument(
        "--config_files",
        action="append",
        default=[],
        metavar="FILES",
        help="YAML files, separated by spaces or commas, or given repeatedly; later files win",
    )


def add_report_option(parser: argparse.ArgumentParser, where: str) -> None:
    """Declare ``--report``.

    Args:
        parser: of a verb that can write a page at its end.
        where: the page's place where the option is given without one.
    """
    parser.add_argument(
        "--report", nargs="?", const="", metavar="FILE", help=f"write an HTML page at the end (default {where})"
    )


def config_files(given: Sequence[str]) -> tuple[str, ...]:
    """Split ``"a.yaml b.yaml"`` at spaces and commas, unless the whole text names a file, or none of the parts does."""
    files: list[str] = []
    for text in given:
        parts = [part for part in re.split(r"[\s,]+", text) if part]
        files += [text] if is_file(text) or not any(map(is_file, parts)) else parts
    return tuple(files)


def say(text: str) -> None:
    """Print a line at once, whatever standard output is connected to.

    Raises:
        SystemExit: who read it has gone, as ``head`` does after ten lines; the code is that of a program ended by SIGPIPE.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_PIPE_EXIT_CODE) from None
