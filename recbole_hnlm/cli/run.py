"""The verb ``recbole-hnlm run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, add_report_option, say
from recbole_hnlm.cli.report import say_report
from recbole_hnlm.cli.request import request_of
from recbole_hnlm.cost.dry_run import dry_run
from recbole_hnlm.quick_start.launch import LaunchOptions, launch
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = KEYS_HELP
EXAMPLES = """examples:
  %(prog)s --model=HNLMLightGCN --dataset=ml-100k
  %(prog)s --model=LightGCN --dataset=ml-100k --learning_rate 0.005 --topk=10,20
  %(prog)s --config_files="a.yaml b.yaml" --epochs=50
  %(prog)s --model=HNLMLightGCN --dataset=ml-100k --resume=saved/RUN_ID.last.pth
  %(prog)s --model=HNLMLightGCN --dataset=ml-100k --dry_run"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add_config_options(parser)
    add_report_option(parser, "beside the results file")
    group = parser.add_argument_group("launcher")
    group.add_argument("--nproc", type=int, default=1, help="processes on this machine (default 1)")
    group.add_argument("--world_size", type=int, default=-1, help="processes on all machines (default: nproc)")
    group.add_argument("--ip", default="localhost", help="address of the first machine (default localhost)")
    group.add_argument("--port", type=int, help="port of the first machine (default: a free one)")
    group.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process (default 0)")
    group = parser.add_argument_group("before any LLM time is spent")
    group.add_argument("--dry_run", action="store_true", help="print text coverage, prompts, tokens and hours; write nothing")
    group.add_argument(
        "--rate", metavar="RATE", help="for --dry_run: tokens out per second, or `measure` (asks 64 prompts, keeps no reply)"
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Train and evaluate, or estimate what it would cost; returns 0.

    Raises:
        HNLMError: anything the user can fix.
        KeyboardInterrupt: with a message that says what is kept and how to go on.
    """
    if args.dry_run:
        say(dry_run(request_of(args, rest).config(), args.rate))
        return 0
    if args.rate is not None:
        raise ConfigError("--rate goes with --dry_run: it only serves the estimate of hours")
    options = LaunchOptions(args.nproc, args.world_size, args.ip, args.port, args.group_offset)
    request = request_of(args, rest)
    result = launch(request, options)
    say(f"results: {result.path}")
    if args.report is not None:
        say_report(result.path, args.report or result.path.with_suffix(".html"), rest, request.config_files)
    return 0
