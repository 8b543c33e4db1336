"""The verb ``recbole-hnlm tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, add_report_option, config_files, say
from recbole_hnlm.cli.report import say_report
from recbole_hnlm.experiments.search_plan import Algorithm, PrunerName
from recbole_hnlm.experiments.tune import SearchOptions, TuneRequest, tune
from recbole_hnlm.utils.given_paths import output_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = (
    f"{KEYS_HELP} A key on the command line holds for every trial. Trials are judged on validation alone; the winner is "
    "evaluated on the test split once, at the end."
)
EXAMPLES = """examples:
  %(prog)s --model=LightGCN --dataset=ml-100k --trials=30 --out=tuned
  %(prog)s --model=HNLMLightGCN --dataset=ml-100k --params_file=hyper.test --jobs=2 --epochs=50 --out=tuned
  %(prog)s --model=BPR --dataset=ml-100k --algo=exhaustive --params_file=hyper.test --pruner=none --seeds=3 --out=tuned
  %(prog)s --model=BPR --dataset=ml-100k --storage=postgresql+psycopg://USER@HOST/DATABASE --out=tuned
Run the same command again to go on, after a kill too. --trials counts those of earlier calls, so that a larger number adds
trials. FOLDER/best.yaml holds the winner: recbole-hnlm run --config_files=FOLDER/best.yaml"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add_config_options(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the search: its journal, logs and results")
    add_report_option(parser, "FOLDER/report.html")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--params_file",
        metavar="FILE",
        help="what to tune, in the format of RecBole's hyper.test (default: shipped for the model)",
    )
    group.add_argument("--trials", type=int, metavar="N", help="trials in all (default 50; exhaustive: every point)")
    group.add_argument("--algo", choices=get_args(Algorithm), default="tpe", help="how points are chosen (default tpe)")
    group.add_argument(
        "--pruner",
        choices=get_args(PrunerName),
        default="median",
        help="how trials that do badly on validation are ended early (default median)",
    )
    group.add_argument("--seeds", metavar="N|LIST", help="a trial is the mean over so many seeds (default 1)")
    group.add_argument("--jobs", type=int, default=1, metavar="N", help="trials that run at once (default 1)")
    group.add_argument(
        "--storage", metavar="URL", help="any Optuna storage, shared by several machines (default: FOLDER/journal.log)"
    )
    group.add_argument("--study", metavar="NAME", help="name of the search in the storage (default MODEL-DATASET)")
    group.add_argument("--allow_llm_keys", action="store_true", help="tune keys that ask the LLM again at every value")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Search and write the results.

    Returns:
        0, or 1 where no trial finished.

    Raises:
        HNLMError: anything the user can fix.
    """
    request = TuneRequest(
        model=args.model,
        dataset=args.dataset,
        config_files=config_files(args.config_files),
        argv=tuple(rest),
        params_file=args.params_file,
        seeds=args.seeds,
        storage=args.storage,
        study=args.study,
        folder=str(output_folder(args.out, "--out")),
        allow_llm_keys=args.allow_llm_keys,
        options=SearchOptions(args.trials, args.algo, args.pruner, args.jobs),
    )
    has_best = tune(request, say).best() is not None
    if args.report is not None:
        say_report(args.out, args.report or Path(args.out) / "report.html", rest, request.config_files)
    return 0 if has_best else 1
