"""``--dry_run``: what a run would ask of the LLM, before any of its time is spent. Nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recbole_hnlm.cost.coverage import coverage_text, measure_coverage
from recbole_hnlm.cost.planning import plan_stages
from recbole_hnlm.cost.rates import MEASURE, Rate, expected_reply_tokens, find_rate, stated_rate
from recbole_hnlm.cost.token_count import SAMPLE, TokenCounter, reply_opening
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.llm.factory import configured_identity
from recbole_hnlm.semantics.attach import kinds_of, stage_context_of
from recbole_hnlm.semantics.pipeline import stages_needed
from recbole_hnlm.utils.errors import DataError

if TYPE_CHECKING:
    from recbole_hnlm.config import Config
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.planning import PlannedReplies

__all__ = ["dry_run"]

_HOUR = 3600.0


def dry_run(config: Config, rate: str | None = None) -> str:
    """Plan a run's LLM stages.

    Args:
        config: configuration of the run.
        rate: tokens out per second, ``measure`` for a trial of 64 prompts, or None for what is known of the configured LLM.

    Returns:
        The report: data, text coverage, prompts and tokens by stage, hours, and what a server would bill.

    Raises:
        HNLMError: the run itself would fail for the same reason before its first prompt, or its data are not here yet.
    """
    if rate not in {None, MEASURE}:
        stated_rate(str(rate))
    folder = Path(config["data_path"])
    if not folder.exists():
        raise DataError(
            f"dataset {config['dataset']} is not in {folder.absolute()} yet, and a dry run writes nothing: "
            f"`recbole-hnlm coverage --dataset={config['dataset']}` downloads it"
        )
    train = load_data(config).train._dataset
    head = [
        f"dry run of {config['model']} on {config['dataset']}: nothing is written",
        f"data after filters: {train.user_num - 1:,} users, {train.item_num - 1:,} items, {len(train):,} training interactions",
    ]
    if not kinds_of(config):
        return "\n".join([*head, "", "LLM: this model reads none of its output with these settings; 0 prompts, 0 tokens"])
    context = stage_context_of(config, train)
    counter = TokenCounter(context.settings)
    parts = [
        "\n".join(head),
        coverage_text(measure_coverage(context, counter)),
        f"stages: {', '.join(stages_needed(context.settings))}",
    ]
    plans = plan_stages(context, configured_identity(context.settings, context.device))
    replies, works = [planned for plan in plans for planned in plan.replies], [plan.work for plan in plans if plan.work]
    if replies:
        parts.append(_replies_text(context, replies, counter, find_rate(rate, context, replies, counter)))
    parts += works
    if not replies and not works:
        parts.append("LLM: 0 prompts, 0 tokens; only the text encoder runs")
    return "\n\n".join(parts)


def _replies_text(context: StageContext, plans: list[PlannedReplies], counter: TokenCounter, rate: Rate) -> str:
    settings = context.settings
    lines = [
        f"LLM {settings.llm_model} ({settings.llm_backend}); tokens in: {counter.how}",
        f"  {'stage':<15}{'prompts':>10}{'there':>10}{'to ask':>10}{'tokens in':>14}{'tokens out at most':>20}",
    ]
    tokens_in = [counter.total(plan.ask, _opening(context, plan)) for plan in plans]
    tokens_out = [len(plan.ask) * plan.job.reply_format.max_new_tokens for plan in plans]
    for plan, read, written in zip(plans, tokens_in, tokens_out, strict=True):
        lines.append(
            f"  {plan.job.description:<15}{plan.prompts:>10,}{plan.there:>10,}{len(plan.ask):>10,}{read:>14,}{written:>20,}"
        )
    prompts, there, ask = (sum(map(count, plans)) for count in (lambda p: p.prompts, lambda p: p.there, lambda p: len(p.ask)))
    lines.append(f"  {'total':<15}{prompts:>10,}{there:>10,}{ask:>10,}{sum(tokens_in):>14,}{sum(tokens_out):>20,}")
    lines.append("  there: replies in finished artefacts or in the reply cache, and prompts equal to another one")
    guessed = sum(plan.guessed for plan in plans)
    if guessed:
        lines.append(
            f"  {guessed:,} prompts quote profiles that do not exist yet: counted with stand-ins of profile_max_words "
            f"({settings.profile_max_words}) words; all are taken as to ask"
        )
    if any(len(plan.ask) > SAMPLE for plan in plans):
        lines.append(f"  tokens in: above {SAMPLE:,} prompts of a kind, that many drawn at random stand for all")
    if settings.llm_reply_attempts > 1:
        lines.append(
            f"  one attempt each; an invalid reply is asked again, up to llm_reply_attempts ({settings.llm_reply_attempts})"
        )
    if settings.llm_backend == "openai":
        lines.append(
            f"to be billed, where the server bills: {sum(tokens_in):,} tokens in ({counter.how}), "
            f"{sum(tokens_out):,} tokens out at most, {_expected(context, plans, rate):,.0f} expected"
        )
    return "\n".join([*lines, _time_text(context, plans, rate)])


def _opening(context: StageContext, plan: PlannedReplies) -> str:
    """What stands behind a prompt for the reply to go on from; a server opens its reply itself."""
    return reply_opening(plan.job.reply_format) if context.settings.llm_backend == "transformers" else ""


def _expected(context: StageContext, plans: list[PlannedReplies], rate: Rate) -> float:
    return sum(len(plan.ask) * (rate.tokens_per_reply or expected_reply_tokens(plan)) for plan in plans)


def _time_text(context: StageContext, plans: list[PlannedReplies], rate: Rate) -> str:
    if not any(plan.ask for plan in plans):
        return "time: no LLM time, because every reply is there"
    if rate.tokens_per_second is None:
        return f"time: rate {rate.source}"
    expected = _expected(context, plans, rate)
    hours = expected / rate.tokens_per_second / _HOUR
    length = "the trial's mean length" if rate.tokens_per_reply else "replies that use their whole word limits"
    return (
        f"time: about {hours:.2f} hours = {expected:,.0f} tokens out ({length}) at {rate.tokens_per_second:,.0f} tokens/s "
        f"({rate.source})"
    )
