"""The verb ``recbole-hnlm analyse``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, say
from recbole_hnlm.experiments.analysis import AnalysisOptions, analyse_all
from recbole_hnlm.experiments.analysis.sources import Source, sources_of_comparison
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = (
    "Nothing is trained. A run is analysed from its checkpoint, a cell of a comparison from the arrays that it kept; what a "
    f"missing file prevents is named in one line. Give again the places that the run had, such as --data_path. {KEYS_HELP}"
)
EXAMPLES = """examples:
  %(prog)s results/RUN_ID.json --out=analysis
  %(prog)s results/A.json results/B.json --user_groups=5,10,20
  %(prog)s --compare=comparison --out=comparison/analysis"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", nargs="*", metavar="RESULT", help="results/RUN_ID.json, or a cell's JSON of a comparison")
    parser.add_argument("--compare", metavar="FOLDER", help="all finished cells of a comparison")
    parser.add_argument("--out", default="analysis", metavar="FOLDER", help="folder of what is written (default analysis)")
    parser.add_argument(
        "--user_groups",
        default="q4",
        metavar="qN|LIST",
        help="users by training interactions: N groups of about equal size (default q4), or upper ends such as 5,10,20",
    )
    parser.add_argument(
        "--item_groups",
        default="0.5,0.8",
        metavar="A,B",
        help="items by popularity: head holds the first A of all interactions, mid those up to B (default 0.5,0.8)",
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples of the intervals (default 1000)")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Analyse the named runs and write the files; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    if bool(args.results) == bool(args.compare):
        raise ConfigError("name what to analyse: one or more results/RUN_ID.json, or --compare=FOLDER")
    apart = [token for token in rest if token.startswith("--") and "=" not in token]
    if apart:
        raise ConfigError(f"{apart[0]}: write keys as --key=value here, since a word that stands alone is the record of a run")
    options = AnalysisOptions(_user_groups(args.user_groups), _item_groups(args.item_groups), _resamples(args.bootstrap))
    sources = sources_of_comparison(args.compare) if args.compare else [Source.read(path) for path in args.results]
    analyse_all(sources, options, tuple(rest), Path(args.out), say)
    return 0


def _user_groups(text: str) -> int | tuple[int, ...]:
    quantiles = re.fullmatch(r"q([1-9]\d{0,2})", text.strip())
    if quantiles:
        return int(quantiles[1])
    parts = [part.strip() for part in text.strip("[] ").split(",")]
    edges = tuple(int(part) for part in parts if re.fullmatch(r"\d{1,9}", part))
    if len(edges) != len(parts) or list(edges) != sorted(set(edges)):
        raise ConfigError(
            f"--user_groups is {text!r}, expected q4 (groups of about equal size) or rising numbers such as 5,10,20"
        )
    return edges


def _item_groups(text: str) -> tuple[float, float]:
    try:
        head, mid = (float(part) for part in text.strip("[] ").split(","))
    except ValueError:
        head, mid = 0.0, 0.0
    if not 0 < head < mid < 1:
        raise ConfigError(f"--item_groups is {text!r}, expected two rising shares between 0 and 1 such as 0.5,0.8")
    return head, mid


def _resamples(count: int) -> int:
    if not 0 <= count <= 100_000:
        raise ConfigError(f"--bootstrap is {count}, expected 0 to 100,000 resamples")
    return count
