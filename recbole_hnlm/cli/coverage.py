"""The verb ``recbole-hnlm coverage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, say
from recbole_hnlm.cli.request import stage_context
from recbole_hnlm.cost.coverage import coverage_text, draw_lengths, measure_coverage
from recbole_hnlm.cost.token_count import TokenCounter
from recbole_hnlm.utils.given_paths import output_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = KEYS_HELP
EXAMPLES = "example:\n  %(prog)s --dataset=ml-100k --out=results"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add_config_options(parser)
    parser.add_argument("--out", metavar="FOLDER", help="also draw histograms of the lengths, FOLDER/coverage-DATASET.png")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the counts, and draw the lengths where a folder is given; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    out = None if args.out is None else output_folder(args.out, "--out")
    _, context, _ = stage_context(args, rest)
    found = measure_coverage(context, TokenCounter(context.settings))
    say(coverage_text(found))
    if out is not None:
        picture = out / f"coverage-{found.dataset}.png"
        draw_lengths(found, picture)
        say(f"picture: {picture}")
    return 0
