"""The verbs of the LLM stages: ``recbole-hnlm profile``, ``negatives``, ``finetune`` and ``encode``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, say
from recbole_hnlm.cli.request import stage_context
from recbole_hnlm.finetune.ranks import Ranks
from recbole_hnlm.finetune.report import evaluate_finetuning, summary_table
from recbole_hnlm.finetune.session import FinetuneSession
from recbole_hnlm.semantics.pipeline import run_stage
from recbole_hnlm.utils.pairs import pairs_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from recbole_hnlm.config import Config
    from recbole_hnlm.data.loading import LoadedData
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.utils.results import RunResult

__all__ = ["EXAMPLES", "NOTES", "add_options", "measure_finetuning", "run"]

NOTES = KEYS_HELP
EXAMPLES = "example:\n  %(prog)s --dataset=ml-100k"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the stage that is the parser's default of ``verb``."""
    add_config_options(parser)
    parser.set_defaults(eval=False)
    if parser.get_default("verb") == "finetune":
        parser.add_argument(
            "--eval", action="store_true", help="rank held-out users' hard negatives before and after; writes JSON and PNG"
        )


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run the stage ``args.verb`` on the training split, or measure what fine-tuning changed; returns 0.

    Raises:
        HNLMError: anything the user can fix.
    """
    if args.verb == "finetune" and not any(token.split("=")[0] == "--negative_route" for token in rest):
        rest = (*rest, "--negative_route=finetuned")
    config, context, data = stage_context(args, rest)
    # If several processes fine-tune together, one of them measures the adapter and writes the results.
    if args.eval and Ranks.from_environment().first:
        result = measure_finetuning(config, context, data)
        say(summary_table(result.record))
        say(f"picture: {result.record['picture']}")
        say(f"results: {result.path}")
        return 0
    report = run_stage(context, args.verb)
    say(
        f"{report.name}: {report.total} in all, {report.reused} reused, {report.generated} made, {report.missing} missing, "
        f"{report.seconds:.1f} s"
    )
    return 0


def measure_finetuning(config: Config, context: StageContext, data: LoadedData) -> RunResult:
    """Rank held-out users' hard negatives before and after fine-tuning; fine-tunes first where that was not done.

    Raises:
        HNLMError: anything the user can fix.
    """
    # Queries may be made of profiles, so these come first; the fine-tuning itself is watched.
    if context.settings.finetune_text == "profiles":
        run_stage(context, "profile")
    users, items = pairs_of(data.valid._dataset)
    with FinetuneSession(context) as session:
        return evaluate_finetuning(
            session.finetuned,
            config["run_id"],
            config["results_dir"],
            config.final_config_dict,
            validation=(users.numpy(), items.numpy()),
        )
