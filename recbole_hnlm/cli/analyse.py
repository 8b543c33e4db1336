"""The verb ``recbole-hnlm analyse``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.cli.common import KEYS_HELP, say
from recbole_hnlm.cli.request import stage_context
from recbole_hnlm.cli.stage import measure_finetuning
from recbole_hnlm.experiments.analysis import AnalysisOptions, analyse_all
from recbole_hnlm.experiments.analysis.sources import Source, sources_of_comparison
from recbole_hnlm.experiments.analysis.transfer import is_finetuning_record, write_transfer
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.results import read_result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = (
    "Nothing is trained, but for --transfer without an adapter. A run is analysed from its checkpoint, a cell of a comparison "
    "from the arrays that it kept; what a missing file prevents is named in one line. Give again the places that the run had, "
    f"such as --data_path. {KEYS_HELP}"
)
EXAMPLES = """examples:
  %(prog)s results/RUN_ID.json --out=analysis
  %(prog)s results/A.json results/B.json --user_groups=5,10,20
  %(prog)s --compare=comparison --out=comparison/analysis
  %(prog)s --transfer=ml-100k,amazon-toys --finetune_from=ADAPTER --finetune_heldout_users=500"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", nargs="*", metavar="RESULT", help="results/RUN_ID.json, or a cell's JSON of a comparison")
    parser.add_argument("--compare", metavar="FOLDER", help="all finished cells of a comparison")
    parser.add_argument(
        "--transfer",
        metavar="DATASETS",
        help="measure the fine-tuned LLM on these datasets, separated by commas; with --finetune_from=ADAPTER one that was "
        "fine-tuned elsewhere",
    )
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
    if sum(map(bool, (args.results, args.compare, args.transfer))) != 1:
        raise ConfigError("name what to analyse: results/RUN_ID.json of runs, --compare=FOLDER or --transfer=DATASETS")
    apart = [token for token in rest if token.startswith("--") and "=" not in token]
    if apart:
        raise ConfigError(f"{apart[0]}: write keys as --key=value here, since a word that stands alone is the record of a run")
    options = AnalysisOptions(_user_groups(args.user_groups), _item_groups(args.item_groups), _resamples(args.bootstrap))
    if args.transfer:
        return _write_transfer(_measured(args, rest), Path(args.out))
    finetuned = [path for path in args.results if is_finetuning_record(path)]
    if finetuned and len(finetuned) < len(args.results):
        raise ConfigError(f"{finetuned[0]} is of finetune --eval, and others are of trained models: analyse one kind at a time")
    if finetuned:
        return _write_transfer([read_result(path).record for path in finetuned], Path(args.out))
    sources = sources_of_comparison(args.compare) if args.compare else [Source.read(path) for path in args.results]
    analyse_all(sources, options, tuple(rest), Path(args.out), say)
    return 0


def _measured(args: argparse.Namespace, rest: Sequence[str]) -> list[dict[str, Any]]:
    """Measure the fine-tuned LLM on each dataset, as ``finetune --eval`` does."""
    names = [name.strip() for name in args.transfer.strip("[] ").split(",") if name.strip()]
    if not names:
        raise ConfigError("--transfer: expected one or more names of datasets, separated by commas")
    if not any(token.split("=")[0] == "--negative_route" for token in rest):
        rest = (*rest, "--negative_route=finetuned")
    records = []
    for name in names:
        say(f"measuring on {name}")
        args.model, args.dataset, args.config_files = None, name, []
        result = measure_finetuning(*stage_context(args, rest))
        say(f"results: {result.path}")
        records.append(result.record)
    return records


def _write_transfer(records: Sequence[Mapping[str, Any]], folder: Path) -> int:
    say(write_transfer(records, folder))
    say(f"transfer: {folder / 'transfer.json'}")
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
