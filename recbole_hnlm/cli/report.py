"""The verb ``recbole-hnlm report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, config_files, say
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["EXAMPLES", "NOTES", "add_options", "run", "say_report"]

NOTES = (
    "One HTML file that loads nothing and sends nothing. A results file does not say where things are: give --data_path, "
    f"--artifact_dir and the keys that name the LLM again where the run had them, or sample users are left out. {KEYS_HELP}"
)
EXAMPLES = """examples:
  %(prog)s results/RUN_ID.json
  %(prog)s --out=comparison/report.html comparison --data_path=data
  %(prog)s --users=0 tuned"""

_USERS = 4


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
        "--config_files", action="append", default=[], metavar="FILES", help="YAML files with keys to give again"
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
    say_report(args.place, args.out, rest, config_files(args.config_files), users=args.users, analysis=args.analysis)
    return 0


def say_report(
    place: str | Path,
    out: str | Path,
    rest: Sequence[str],
    files: Sequence[str],
    *,
    users: int = _USERS,
    analysis: str | None = None,
) -> None:
    """Write a page and say where it is, for this verb and for those that write one at their end.

    Args:
        place: of what the page shows.
        out: the page.
        rest: keys on the command line, which say where things are.
        files: YAML files, which may say it too.
        users: sample users.
        analysis: folder that ``analyse`` wrote; None looks for it.

    Raises:
        HNLMError: there is nothing to report of, or the page cannot be written.
    """
    # Only pages need the plotting; the verbs that can write one start without it.
    from recbole_hnlm.experiments.report.build import write_report  # noqa: PLC0415
    from recbole_hnlm.experiments.report.samples import SampleOptions  # noqa: PLC0415

    size = write_report(place, out, SampleOptions.of_command(users, rest, files), analysis)
    say(f"report: {out} ({size / 1000:,.0f} kB)")
