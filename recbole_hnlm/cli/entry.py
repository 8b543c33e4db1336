"""The command line: ``recbole-hnlm <verb>`` and ``run_recbole_hnlm.py``."""

from __future__ import annotations

import argparse
import errno
import importlib
import re
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm import __version__
from recbole_hnlm.cli.compare import COMPARE_EXAMPLES, COMPARE_HELP, add_compare_options, run_compare
from recbole_hnlm.cli.prepare import PREPARE_EXAMPLES, PREPARE_HELP, PREPARE_NOTES, add_prepare_options, run_prepare
from recbole_hnlm.stages.catalogue import STAGE_CATALOGUE
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, ConfigError, HNLMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recbole_hnlm.quick_start.launch import RunRequest

__all__ = ["main", "run_script"]

# The heavy modules are imported by the verbs that need them, so that --help answers at once.

_INTERRUPTED_EXIT_CODE = 130
_STAGE_MODEL = "HNLMLightGCN"

_KEYS_HELP = (
    "Every key of RecBole and of recbole-hnlm can be given as --key=value or --key value; lists as [a,b] or a,b. "
    "A key that nothing reads is an error that names the nearest valid one."
)
_RUN_HELP = "train and evaluate one model; LLM stages that are missing are built first"
_RUN_EXAMPLES = """examples:
  recbole-hnlm run --model=HNLMLightGCN --dataset=ml-100k
  recbole-hnlm run --model=LightGCN --dataset=ml-100k --learning_rate 0.005 --topk=10,20
  recbole-hnlm run --config_files="a.yaml b.yaml" --epochs=50
  recbole-hnlm run --model=HNLMLightGCN --dataset=ml-100k --resume=saved/RUN_ID.last.pth
  recbole-hnlm run --model=HNLMLightGCN --dataset=ml-100k --dry_run"""
_COVERAGE_HELP = "count what text a dataset has, and the tokens of the prompts made of it; downloads a dataset of RecBole's"


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="name of the model; `model:` in YAML works too")
    parser.add_argument("--dataset", help="name of the dataset; `dataset:` in YAML works too")
    parser.add_argument(
        "--config_files",
        action="append",
        default=[],
        metavar="FILES",
        help="YAML files, separated by spaces or commas, or given repeatedly; later files win",
    )


def _add_launcher_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("launcher")
    group.add_argument("--nproc", type=int, default=1, help="processes on this machine (default 1)")
    group.add_argument("--world_size", type=int, default=-1, help="processes on all machines (default: nproc)")
    group.add_argument("--ip", default="localhost", help="address of the first machine (default localhost)")
    group.add_argument("--port", type=int, help="port of the first machine (default: a free one)")
    group.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process (default 0)")


def _fill_run(parser: argparse.ArgumentParser) -> None:
    _add_config_options(parser)
    _add_launcher_options(parser)
    group = parser.add_argument_group("before any LLM time is spent")
    group.add_argument("--dry_run", action="store_true", help="print text coverage, prompts, tokens and hours; write nothing")
    group.add_argument(
        "--rate", metavar="RATE", help="for --dry_run: tokens out per second, or `measure` (asks 64 prompts, keeps no reply)"
    )
    parser.set_defaults(handler=_run)


def _formatted(**kwargs: Any) -> dict[str, Any]:
    return {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs}


def _parser() -> argparse.ArgumentParser:
    description = "Graph collaborative filtering in RecBole with hard negatives made by a large language model."
    parser = argparse.ArgumentParser(**_formatted(prog="recbole-hnlm", description=description))
    parser.add_argument("--version", action="version", version=f"recbole-hnlm {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")

    def verb(
        name: str, text: str, handler: Callable[..., int], epilog: str | None = None, notes: str = _KEYS_HELP
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, **_formatted(help=text, description=f"{text}.\n\n{notes}", epilog=epilog))
        sub.set_defaults(handler=handler)
        return sub

    _fill_run(verb("run", _RUN_HELP, _run, _RUN_EXAMPLES))
    for name, entry in STAGE_CATALOGUE.items():
        stage = verb(name, entry.help, _stage, f"example:\n  recbole-hnlm {name} --dataset=ml-100k")
        stage.set_defaults(stage=name, eval=False)
        _add_config_options(stage)
        if name == "finetune":
            stage.add_argument(
                "--eval", action="store_true", help="rank held-out users' hard negatives before and after; writes JSON and PNG"
            )
    show = verb("show", "show what the LLM was told and said for one user", _show, "example:\n  recbole-hnlm show --user=196")
    _add_config_options(show)
    show.add_argument("--user", required=True, metavar="ID", help="the user's id as in the .inter file")
    evaluate = verb(
        "evaluate",
        "evaluate a checkpoint on the validation and test splits",
        _evaluate,
        "example:\n  recbole-hnlm evaluate --checkpoint=saved/RUN_ID.pth --topk=20 --valid_metric=NDCG@20",
    )
    evaluate.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pth file that recbole-hnlm wrote")
    cover = verb("coverage", _COVERAGE_HELP, _coverage, "example:\n  recbole-hnlm coverage --dataset=ml-100k --out=results")
    _add_config_options(cover)
    cover.add_argument("--out", metavar="FOLDER", help="also draw histograms of the lengths, FOLDER/coverage-DATASET.png")
    add_prepare_options(verb("prepare", PREPARE_HELP, _prepare, PREPARE_EXAMPLES, PREPARE_NOTES))
    add_compare_options(verb("compare", COMPARE_HELP, _compare, COMPARE_EXAMPLES))
    _add_config_options(verb("doctor", "check versions, devices, memory, LLM and encoder, and say how to mend them", _doctor))
    return parser


def _config_files(given: Sequence[str]) -> tuple[str, ...]:
    """Split ``"a.yaml b.yaml"`` at spaces and commas, unless the whole text names a file."""
    files: list[str] = []
    for text in given:
        files += [text] if Path(text).is_file() else [part for part in re.split(r"[\s,]+", text) if part]
    return tuple(files)


def _request(args: argparse.Namespace, rest: Sequence[str]) -> RunRequest:
    from recbole_hnlm.quick_start.launch import RunRequest  # noqa: PLC0415 - see the note at the top

    return RunRequest(model=args.model, dataset=args.dataset, config_files=_config_files(args.config_files), argv=tuple(rest))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    if args.dry_run:
        _say(importlib.import_module("recbole_hnlm.cost.dry_run").dry_run(_request(args, rest).config(), args.rate))
        return 0
    if args.rate is not None:
        raise ConfigError("--rate goes with --dry_run: it is for its estimate of hours alone")
    from recbole_hnlm.quick_start.launch import LaunchOptions, launch  # noqa: PLC0415

    options = LaunchOptions(args.nproc, args.world_size, args.ip, args.port, args.group_offset)
    _say(f"results: {launch(_request(args, rest), options).path}")
    return 0


def _evaluate(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from recbole_hnlm.quick_start.runner import evaluate_checkpoint  # noqa: PLC0415

    _say(f"results: {evaluate_checkpoint(args.checkpoint, tuple(rest)).path}")
    return 0


def _stage_context(args: argparse.Namespace, rest: Sequence[str]) -> tuple[Any, Any, Any]:
    """Load and split the data as a run would; returns the configuration, what the LLM stages see of it, and the splits."""
    from recbole_hnlm.data.loading import load_data  # noqa: PLC0415
    from recbole_hnlm.quick_start.runner import prepare_run  # noqa: PLC0415
    from recbole_hnlm.utils.values import load_yaml  # noqa: PLC0415

    if args.model is None and not any("model" in load_yaml(file) for file in _config_files(args.config_files)):
        args.model = _STAGE_MODEL
    config = _request(args, rest).config()
    prepare_run(config)
    data = load_data(config)
    context = importlib.import_module("recbole_hnlm.semantics.attach").stage_context_of(config, data.train._dataset)
    return config, context, data


def _pairs_of(dataset: Any) -> tuple[Any, Any]:
    """Internal ids of the users and items of one of RecBole's splits."""
    user_ids, item_ids = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    return user_ids, item_ids


def _stage(args: argparse.Namespace, rest: Sequence[str]) -> int:
    if args.stage == "finetune" and not any(token.split("=")[0] == "--negative_route" for token in rest):
        rest = (*rest, "--negative_route=finetuned")
    config, context, data = _stage_context(args, rest)
    stages = importlib.import_module("recbole_hnlm.semantics.pipeline")
    # Of several processes that fine-tune together, one measures the adapter and writes the results.
    if args.eval and importlib.import_module("recbole_hnlm.finetune.ranks").Ranks.from_environment().first:
        # Profiles first, where the queries are made of them; the fine-tuning itself is watched.
        if context.settings.finetune_text == "profiles":
            stages.run_stage(context, "profile")
        report = importlib.import_module("recbole_hnlm.finetune.report")
        with importlib.import_module("recbole_hnlm.finetune.session").FinetuneSession(context) as session:
            result = report.evaluate_finetuning(
                session.finetuned,
                config["run_id"],
                config["results_dir"],
                config.final_config_dict,
                validation=_pairs_of(data.valid._dataset),
            )
        _say(report.summary_table(result.record))
        _say(f"picture: {result.record['picture']}")
        _say(f"results: {result.path}")
        return 0
    report = stages.run_stage(context, args.stage)
    _say(
        f"{report.name}: {report.total} in all, {report.reused} reused, {report.generated} made, {report.missing} missing, "
        f"{report.seconds:.1f} s"
    )
    return 0


def _show(args: argparse.Namespace, rest: Sequence[str]) -> int:
    text = importlib.import_module("recbole_hnlm.cli.show").show_user(_stage_context(args, rest)[1], args.user)
    if isinstance(text, str):
        _say(text)
    return 0


def _coverage(args: argparse.Namespace, rest: Sequence[str]) -> int:
    coverage = importlib.import_module("recbole_hnlm.cost.coverage")
    counting = importlib.import_module("recbole_hnlm.cost.token_count")
    _, context, _ = _stage_context(args, rest)
    found = coverage.measure_coverage(context, counting.TokenCounter(context.settings))
    _say(coverage.coverage_text(found))
    if args.out is not None:
        picture = Path(args.out) / f"coverage-{found.dataset}.png"
        coverage.draw_lengths(found, picture)
        _say(f"picture: {picture}")
    return 0


def _prepare(args: argparse.Namespace, rest: Sequence[str]) -> int:
    _say(run_prepare(args, rest))
    return 0


def _compare(args: argparse.Namespace, rest: Sequence[str]) -> int:
    return run_compare(args, _config_files(args.config_files), rest)


def _doctor(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from recbole_hnlm.cli.doctor import examine, report  # noqa: PLC0415

    checks = examine(args.model, args.dataset, _config_files(args.config_files), tuple(rest))
    _say(report(checks))
    return USER_ERROR_EXIT_CODE if any(check.is_failure for check in checks) else 0


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """Let SIGTERM interrupt like Ctrl-C, so that workers are ended and the way to go on is said; yield those that came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _guarded(handler: Callable[[argparse.Namespace, Sequence[str]], int], args: argparse.Namespace, rest: list[str]) -> int:
    """Run a verb and turn what the user can mend into one line and an exit code."""
    from recbole_hnlm.utils.logger import quiet_recbole  # noqa: PLC0415

    quiet_recbole()
    came: list[int] = []
    try:
        with _terminable() as came:
            return handler(args, rest)
    except HNLMError as error:
        message, code = f"error: {' '.join(str(error).split())}", USER_ERROR_EXIT_CODE
    except KeyboardInterrupt as interrupt:
        kept = str(interrupt) or "what was finished is kept; run the same command again to go on"
        message, code = f"interrupted: {kept}", 128 + came[0] if came else _INTERRUPTED_EXIT_CODE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message, code = f"error: the disk is full ({error.filename}): free space, then run again", USER_ERROR_EXIT_CODE
    sys.stderr.write(f"{message}\n")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``recbole-hnlm <verb> ...``.

    Args:
        argv: the arguments after the program's name; None takes ``sys.argv``.

    Returns:
        0, 1 where cells of a comparison failed, 2 for what the user can mend (one line on standard error says how), 130 when
        interrupted, 143 when terminated.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if not hasattr(args, "handler"):
        parser.print_help(sys.stderr)
        return USER_ERROR_EXIT_CODE
    return _guarded(args.handler, args, rest)


def run_script(argv: Sequence[str] | None = None) -> int:
    """Run ``run_recbole_hnlm.py ...``, which is the verb ``run`` under RecBole's usual name."""
    parser = argparse.ArgumentParser(
        **_formatted(
            prog="run_recbole_hnlm.py",
            description=f"{_RUN_HELP}.\n\n{_KEYS_HELP}",
            epilog=_RUN_EXAMPLES.replace("recbole-hnlm run", "python run_recbole_hnlm.py"),
        )
    )
    _fill_run(parser)
    args, rest = parser.parse_known_args(argv)
    return _guarded(args.handler, args, rest)
