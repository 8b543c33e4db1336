"""The verb ``recbole-hnlm prepare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import say
from recbole_hnlm.prepare.convert import MAX_BROKEN_SHARE, prepare
from recbole_hnlm.prepare.registry import SOURCES
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = (
    "Nothing is filtered: windows of ratings and times and k-cores are RecBole's keys (val_interval, user_inter_num_interval, "
    "item_inter_num_interval). Files may be plain or gzip."
)
EXAMPLES = """examples:
  %(prog)s --source=amazon2018 --reviews=Toys_and_Games.json.gz --meta=meta_Toys_and_Games.json.gz \\
      --name=paper-toys --out=dataset --with_reviews"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--source", help=f"one of {', '.join(SOURCES)}")
    parser.add_argument("--reviews", metavar="FILE", help="the dump's reviews")
    parser.add_argument("--meta", metavar="FILE", help="the dump's products or businesses")
    parser.add_argument("--name", required=True, help="name of the dataset to write")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of datasets (RecBole's data_path)")
    parser.add_argument("--with_reviews", action="store_true", help="also write the reviews' texts")
    parser.add_argument(
        "--max_broken_share",
        type=float,
        default=MAX_BROKEN_SHARE,
        metavar="SHARE",
        help="share of records that may be unreadable (default %(default)s)",
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Convert, and print the report; returns 0.

    Raises:
        ConfigError: an argument that the verb does not know, or a value it cannot use.
        DataError: an input that cannot be used.
    """
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r}: see recbole-hnlm prepare --help; filters are keys of the run")
    say(_prepare(args))
    return 0


def _prepare(args: argparse.Namespace) -> str:
    missing = [f"--{option}" for option in ("source", "reviews", "meta") if getattr(args, option) is None]
    if missing:
        raise ConfigError(f"prepare needs {', '.join(missing)}: see recbole-hnlm prepare --help")
    options = {"with_reviews": args.with_reviews, "max_broken_share": args.max_broken_share}
    return str(prepare(args.source, args.reviews, args.meta, args.name, args.out, **options))
