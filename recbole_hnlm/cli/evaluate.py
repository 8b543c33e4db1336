"""The verb ``recbole-hnlm evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, say
from recbole_hnlm.quick_start.runner import evaluate_checkpoint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = KEYS_HELP
EXAMPLES = "example:\n  %(prog)s --checkpoint=saved/RUN_ID.pth --topk=20 --valid_metric=NDCG@20"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pth file that recbole-hnlm wrote")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Evaluate the checkpoint and write the results file; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    say(f"results: {evaluate_checkpoint(args.checkpoint, tuple(rest)).path}")
    return 0
