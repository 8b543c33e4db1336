"""The verb ``recbole-hnlm recommend``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from recbole_hnlm.cli.common import KEYS_HELP, say
from recbole_hnlm.data.atomic_text import clean_text
from recbole_hnlm.quick_start.loaded import loaded_model
from recbole_hnlm.quick_start.recommending import Recommender
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.given_paths import input_file
from recbole_hnlm.utils.row_files import check_row_file, row_writer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = (
    "Items of a user's training interactions are left out. Users are scored a batch at a time (eval_users_per_batch), and what "
    f"is recommended goes straight to the file, which appears whole at the end.\n\n{KEYS_HELP}"
)
EXAMPLES = """examples:
  %(prog)s --checkpoint=saved/RUN_ID.pth --user=196 --user=22
  %(prog)s --checkpoint=saved/RUN_ID.pth --users=users.txt --topk=20 --out=recs.csv
  %(prog)s --checkpoint=saved/RUN_ID.pth --all --out=recs.parquet --data_path=data"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pth file that recbole-hnlm wrote")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--user", action="append", metavar="ID", help="a user's id as in the .inter file; may be repeated")
    chosen.add_argument("--users", metavar="FILE", help="a file with one user's id a line, in UTF-8")
    chosen.add_argument("--all", action="store_true", help="all users")
    parser.add_argument("--topk", type=int, default=10, metavar="K", help="items for each user (default 10)")
    parser.add_argument(
        "--out", metavar="FILE", help="write a .csv, .jsonl or .parquet file; without it, tab-separated lines are printed"
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print or write recommendations; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    if args.out is not None:
        args.out = check_row_file(args.out)
    wanted = args.user
    if args.users is not None:
        wanted = _ids_in(input_file(args.users, "--users: file", "a file with one user's id a line", DataError))
    if args.topk < 1:
        raise ConfigError(f"--topk is {args.topk}, expected 1 or more")
    loaded = loaded_model(args.checkpoint, argv=tuple(rest))
    recommender, shown = Recommender(loaded), bool(loaded.config["show_progress"])
    users = recommender.ids_of(None if args.all else wanted)
    if not len(users):
        raise DataError(f"--users: file {args.users} names no user: expected one id a line")
    batches = recommender.batches(users, args.topk)
    if args.out is None:
        say("\t".join(recommender.columns))
        for batch in batches:
            _print_rows(batch)
        return 0
    written = 0
    with (
        row_writer(args.out, recommender.columns) as append,
        tqdm(total=len(users), desc="recommendations", unit="user", dynamic_ncols=True, disable=not shown) as bar,
    ):
        for batch in batches:
            append(batch)
            written += len(batch["rank"])
            bar.update(min(recommender.users_per_batch, len(users) - bar.n))
    fewer = f", fewer than {args.topk} where no more items are left" if written < args.topk * len(users) else ""
    say(f"recommendations: {args.out} ({written:,} for {len(users):,} users{fewer})")
    return 0


def _ids_in(file: Path) -> Iterator[str]:
    """Yield the ids of a file; blank lines are passed over."""
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for line in lines:
                if line.strip():
                    yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"--users: file {file} is not UTF-8 text: expected one user's id a line") from error
    except OSError as error:
        raise DataError(f"--users: cannot read {file}: {error.strerror}") from error


def _print_rows(batch: Mapping[str, Sequence[Any]]) -> None:
    """Print rows as tab-separated lines; control characters of ids, which a terminal would obey, become spaces."""
    lines = ["\t".join(_cell(value) for value in row) for row in zip(*batch.values(), strict=True)]
    if lines:
        say("\n".join(lines))


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else clean_text(str(value))
