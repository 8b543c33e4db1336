"""How fast an LLM answers, for estimates: as the user says, measured by a short trial, or stated with its source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbole_hnlm.config.sections.llm import EMBEDDED_MODEL
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.protocol import Decoding
from recbole_hnlm.utils.errors import BackendError, ConfigError
from recbole_hnlm.utils.showing import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.cost.token_count import TokenCounter
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.planning import PlannedReplies

__all__ = ["MEASURE", "Rate", "expected_reply_tokens", "find_rate", "stated_rate"]

#: Value of ``--rate`` that asks for a trial.
MEASURE = "measure"

_TRIAL_PROMPTS = 64  # half a batch of the default llm_batch_size: smaller batches are slower a reply
_EMBEDDED_CPU = 260.0
"""Tokens out per second of the embedded model on 2 CPU cores: README's run on ml-100k took 349 s for 2,375 replies, which
:func:`expected_reply_tokens` takes for 90,000 tokens."""
_SERVER_STREAM = 50.0
_TOKENS_PER_WORD = 1.4
_STRUCTURE_TOKENS = 14  # braces, quotes and field names behind the opening


@dataclass(frozen=True)
class Rate:
    """Tokens that come out in a second, all requests together, the reading of prompts included.

    Attributes:
        tokens_per_second: the rate; None where it is not known.
        source: where it comes from, for the report.
        tokens_per_reply: mean length of the trial's replies; None without a trial.
    """

    tokens_per_second: float | None
    source: str
    tokens_per_reply: float | None = None


def expected_reply_tokens(plan: PlannedReplies) -> float:
    """Tokens of a reply that uses its whole word limits, at 1.4 tokens per word."""
    return _STRUCTURE_TOKENS + _TOKENS_PER_WORD * plan.job.words


def stated_rate(asked: str) -> float:
    """Read a rate in tokens per second.

    Raises:
        ConfigError: it is no positive number.
    """
    try:
        value = float(asked)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"--rate: expected tokens per second such as 300, or {MEASURE}, got {shown(asked)}")
    return value


def find_rate(asked: str | None, context: StageContext, plans: Sequence[PlannedReplies], counter: TokenCounter) -> Rate:
    """Find the rate for an estimate.

    Args:
        asked: a number of tokens per second, ``measure``, or None for what is known of the configured LLM.
        context: settings and device.
        plans: what would be asked; a trial takes its prompts from here.
        counter: counts the tokens of the trial's replies.

    Raises:
        ConfigError: ``asked`` is neither a positive number nor ``measure``.
        BackendError: the trial's model cannot answer.
    """
    settings = context.settings
    if asked == MEASURE:
        return _measured(context, plans, counter)
    if asked is not None:
        return Rate(stated_rate(asked), "as given by --rate")
    if settings.llm_backend == "openai":
        rate = _SERVER_STREAM * settings.llm_concurrency
        return Rate(rate, f"assumed, not measured: {_SERVER_STREAM:.0f} tokens/s in each of llm_concurrency requests")
    if settings.llm_model == EMBEDDED_MODEL and context.device.startswith("cpu"):
        return Rate(_EMBEDDED_CPU, "stated: the embedded model on 2 CPU cores, README's run on ml-100k")
    return Rate(
        None, f"not known for {settings.llm_model} on {context.device}: give --rate=TOKENS_PER_SECOND or --rate={MEASURE}"
    )


def _measured(context: StageContext, plans: Sequence[PlannedReplies], counter: TokenCounter) -> Rate:
    """Ask prompts spread over the largest plan, once each, and keep no reply."""
    plan = max(plans, key=lambda plan: len(plan.ask), default=None)
    if plan is None or not plan.ask:
        return Rate(None, "not measured, because nothing is left to ask")
    count = min(len(plan.ask), _TRIAL_PROMPTS)
    prompts = [plan.ask[place * len(plan.ask) // count] for place in range(count)]
    form, settings = plan.job.reply_format, context.settings
    decoding = Decoding(form.max_new_tokens, form.temperature, settings.llm_seed, form.schema)
    backend = load_backend(settings, context.device)
    try:
        backend.generate(prompts[:1], decoding)  # loads the model
        start = time.perf_counter()
        replies = backend.generate(prompts, decoding)
        seconds = time.perf_counter() - start
    finally:
        backend.close()
    tokens = sum(counter.count_text(reply) for reply in replies if reply is not None)
    if not tokens:
        raise BackendError(f"--rate={MEASURE}: none of the {len(prompts)} prompts of the trial got a complete reply")
    return Rate(tokens / seconds, f"measured on {len(prompts)} prompts in {seconds:.1f} s", tokens / len(prompts))
