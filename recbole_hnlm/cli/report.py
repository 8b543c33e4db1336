"""The verb ``recbole-hnlm report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import say
from recbole_hnlm.experiments.report.build import write_report
from recbole_hnlm.experiments.report.samples import SampleOptions
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["EXAMPLES", "NOTES", "add_options", "run", "say_report"]

NOTES = (
    "One HTML file that loads nothing and sends nothing. A results file does not say where things are: give --data_path, "
    "--artifact_dir and the keys that name the LLM again where they were given to the run, or sample users are left out."
)
EXAMPLES = """examples:
  %(prog)s results/RUN_ID.json
  %(prog)s comparison --out=comparison/report.html
  %(prog)s tuned --users=0"""

_USERS = SampleOptions().users


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("place", metavar="RESULT|FOLDER", help="results/RUN_ID.json, or the folder of compare or tune")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="the page (default report.html)")
    parser.add_argument(
        "--analysis",
        metavar="FOLDER",
        help="what analyse wrote (default: FOLDER/analysis, or analysis beside the results file)",
    )
    parser.add_argument(
        "--users",
        type=int,
        default=_USERS,
        metavar="N",
        help=f"sample users that are shown (default {_USERS}; 0 loads no data)",
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the page; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    if not 0 <= args.users <= 50:
        raise ConfigError(f"--users: expected 0 to 50, got {args.users}")
    say_report(args.place, args.out, SampleOptions(args.users, tuple(rest)), args.analysis)
    return 0


def say_report(place: str | Path, out: str | Path, options: SampleOptions, analysis: str | None = None) -> None:
    """Write a page and say where it is, for this verb and for those that write one at their end.

    Raises:
        HNLMError: there is nothing to report of, or the page cannot be written.
    """
    size = write_report(place, out, options, analysis)
    say(f"report: {out} ({size / 1000:,.0f} kB)")
