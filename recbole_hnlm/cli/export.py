"""The verb ``recbole-hnlm export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, say
from recbole_hnlm.quick_start.exporting import export_embeddings
from recbole_hnlm.utils.row_files import ROW_FORMATS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = (
    "The inner product of a user's and an item's vector is the model's score: graph models give their propagated vectors. Row "
    f"i of a tensor is line i of the ids. Models that score in another way are refused.\n\n{KEYS_HELP}"
)
EXAMPLES = """examples:
  %(prog)s --checkpoint=saved/RUN_ID.pth --out=embeddings
  %(prog)s --checkpoint=saved/RUN_ID.pth --out=embeddings --ids=parquet --data_path=data"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pth file that recbole-hnlm wrote")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new or an empty folder, or an earlier export")
    parser.add_argument("--ids", choices=ROW_FORMATS, default="csv", help="format of the raw ids (default csv)")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write embeddings, ids and the manifest; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    done = export_embeddings(args.checkpoint, args.out, ids=args.ids, argv=tuple(rest))
    say(f"embeddings: {done.folder} ({done.users:,} users, {done.items:,} items, dimension {done.dim})")
    return 0
