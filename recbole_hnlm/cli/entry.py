"""The command line: ``recbole-hnlm <verb>`` and ``run_recbole_hnlm.py``."""

from __future__ import annotations

import argparse
import errno
import importlib
import shlex
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from recbole_hnlm import __version__
from recbole_hnlm.stages.catalogue import STAGE_CATALOGUE
from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, HNLMError, MissingDependencyError, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["VERBS", "Verb", "VerbEntry", "main", "run_script"]

_INTERRUPTED_EXIT_CODE = 130
# Its metadata asks for a version of ray that newer Pythons have no wheels of, and nothing here reads ray.
_RECBOLE_INSTALL = "pip install --no-deps recbole==1.2.1"
_REPEAT_SECONDS = 2.0  # in which a repeated Ctrl-C counts as the same one


class Verb(Protocol):
    """What the module of a verb defines.

    Attributes:
        NOTES: text below the verb's one-line help.
        EXAMPLES: text at the end of the help; None where there is none. ``%(prog)s`` stands for the command.
    """

    NOTES: str
    EXAMPLES: str | None

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's options; the parser's defaults are ``verb``, the name that was called, and ``command``."""

    def run(self, args: argparse.Namespace, rest: Sequence[str]) -> int:
        """Do the verb's work.

        Args:
            args: the options declared, ``verb``, and ``command``: the line that was typed, without secrets.
            rest: the arguments that no option took: keys of the configuration.

        Returns:
            The exit code.
        """


class VerbEntry(NamedTuple):
    """Where a verb is, and what it does.

    Attributes:
        module: name of its :class:`Verb` module in this package.
        help: one line for ``recbole-hnlm --help``.
    """

    module: str
    help: str


VERBS: dict[str, VerbEntry] = {
    "run": VerbEntry("run", "train and evaluate one model; LLM stages that are missing are built first"),
    **{name: VerbEntry("stage", entry.help) for name, entry in STAGE_CATALOGUE.items()},
    "show": VerbEntry("show", "show what the LLM was told and said for one user"),
    "evaluate": VerbEntry("evaluate", "evaluate a checkpoint on the validation and test splits"),
    "recommend": VerbEntry("recommend", "recommend items to users with a checkpoint, as lines, CSV, JSON lines or Parquet"),
    "export": VerbEntry("export", "write a checkpoint's embeddings of users and items, with raw ids, for an index elsewhere"),
    "coverage": VerbEntry(
        "coverage", "count what text a dataset has, and the tokens of the prompts made of it; downloads a dataset of RecBole's"
    ),
    "prepare": VerbEntry("prepare", "turn a published raw dump (Amazon reviews, Yelp) into RecBole's atomic files"),
    "compare": VerbEntry(
        "compare", "run models x negative samplers x seeds on one split, and put them into a table with paired tests"
    ),
    "tune": VerbEntry("tune", "search the keys that do best on validation, and evaluate them on the test split"),
    "analyse": VerbEntry(
        "analyse", "analyse finished runs: groups of users and items, what lists are like, negatives over epochs"
    ),
    "doctor": VerbEntry("doctor", "check versions, devices, memory, LLM and encoder, and say how to fix them"),
    "report": VerbEntry("report", "write a run, a comparison or a search as one HTML page"),
}


def _formatted(**kwargs: Any) -> dict[str, Any]:
    return {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs}


def _parser() -> argparse.ArgumentParser:
    """Build the parser that finds the verb; what follows the verb is left to :func:`_perform`."""
    description = "Graph collaborative filtering in RecBole with hard negatives made by a large language model."
    parser = argparse.ArgumentParser(**_formatted(prog="recbole-hnlm", description=description))
    parser.add_argument("--version", action="version", version=f"recbole-hnlm {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    for name, entry in VERBS.items():
        verbs.add_parser(name, **_formatted(help=entry.help, add_help=False))
    return parser


def _imported(module: str) -> Verb:
    """Import the module of a verb.

    Raises:
        MissingDependencyError: a package that RecBole or this one needs is not there.
    """
    # By name, once the verb is known: start-up time is the reason. Together the verbs import PyTorch and RecBole, which
    # takes seconds, while `recbole-hnlm --help` answers at once.
    try:
        importlib.import_module("recbole_hnlm.utils.logger").quiet_recbole()
        return cast("Verb", importlib.import_module(f"recbole_hnlm.cli.{module}"))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "recbole_hnlm":
            raise
        raise MissingDependencyError(
            f"the package {error.name.partition('.')[0]}, which recbole-hnlm or RecBole needs, is not installed in the Python "
            f"at {sys.executable}: run `make setup`, or pip install recbole-hnlm again"
        ) from error


def _perform(name: str, prog: str, argv: Sequence[str] | None) -> int:
    """Import a verb, parse its options and run it."""
    entry = VERBS[name]
    if sys.stderr.isatty():
        # Who looks on sees at once that something happens: the imports take seconds.
        sys.stderr.write(f"recbole-hnlm {__version__}, {name}: loading PyTorch and RecBole\n")
    verb = _imported(entry.module)
    parser = argparse.ArgumentParser(
        **_formatted(prog=prog, description=f"{entry.help}.\n\n{verb.NOTES}", epilog=verb.EXAMPLES)
    )
    given = sys.argv[1:] if argv is None else argv
    parser.set_defaults(verb=name, command=redact(shlex.join([*prog.split(), *given])))
    verb.add_options(parser)
    args, rest = parser.parse_known_args(argv)
    return verb.run(args, rest)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Let SIGTERM interrupt like Ctrl-C, and a repeated Ctrl-C count once; yields the numbers of the signals that came.

    Either way, workers are ended and the user learns how to go on. A Ctrl-C within two seconds of the first one is ignored,
    since it would only cut the clean-up short with a traceback. A later one interrupts again, in case the first was lost.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    first = -_REPEAT_SECONDS

    def interrupt(number: int, _frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGINT and came and now - first < _REPEAT_SECONDS:
            return
        first = now
        came.append(number)
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    # A shell starts background jobs with SIGINT ignored, and so it stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        if signal.SIGINT in came:
            # Kept until the process ends, for a repeated Ctrl-C while the interpreter shuts down.
            before.pop(signal.SIGINT, None)
        for number, handler in before.items():
            signal.signal(number, handler)


def _guarded(name: str, prog: str, argv: Sequence[str] | None) -> int:
    """Run a verb and turn what the user can fix into one line and an exit code."""
    with _interruptible() as came:
        try:
            return _perform(name, prog, argv)
        except HNLMError as error:
            message, code = f"error: {redact(' '.join(str(error).split()))}", USER_ERROR_EXIT_CODE
        except ModuleNotFoundError as error:
            if error.name != "recbole":
                raise
            message, code = f"error: RecBole is not installed: {_RECBOLE_INSTALL}", USER_ERROR_EXIT_CODE
        except KeyboardInterrupt as interrupt:
            kept = str(interrupt) or "what was finished is kept; run the same command again to continue"
            message, code = f"interrupted: {kept}", 128 + came[0] if came else _INTERRUPTED_EXIT_CODE
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[-200:] or "no memory is left"
            message = (
                f"error: out of memory ({reason}): lower the sizes, such as embedding_size, train_batch_size or num_candidates"
            )
            code = USER_ERROR_EXIT_CODE
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
        0, 1 where cells of a comparison failed, 2 for what the user can fix (one line on standard error says how), 130 when
        interrupted, 143 when terminated.
    """
    parser = _parser()
    chosen, rest = parser.parse_known_args(argv)
    if chosen.verb is None:
        parser.print_help(sys.stderr)
        return USER_ERROR_EXIT_CODE
    return _guarded(chosen.verb, f"recbole-hnlm {chosen.verb}", rest)


def run_script(argv: Sequence[str] | None = None) -> int:
    """Run ``run_recbole_hnlm.py ...``, which is the verb ``run`` under RecBole's usual name."""
    return _guarded("run", "python run_recbole_hnlm.py", argv)
