"""Asking a backend for many replies: cached, batched, validated, repeated a bounded number of times, and counted."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from recbole_hnlm.llm.cache import content_key
from recbole_hnlm.llm.protocol import AnswersCutShortError, Decoding, TokenUsage, usage_of
from recbole_hnlm.llm.replies import parse_reply
from recbole_hnlm.utils.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.cache import ReplyCache
    from recbole_hnlm.llm.protocol import LLMBackend, ModelIdentity, Prompt
    from recbole_hnlm.llm.replies import ReplyFormat

__all__ = ["AskResult", "ask", "may_answer_now", "retry_decoding"]

RETRY_TEMPERATURE = 0.7
"""Lowest temperature at which a prompt is asked again: a greedy model would repeat its invalid reply."""

_EXAMPLE_CHARS = 200
_LOGGER = logging.getLogger("recbole_hnlm")


@dataclass(frozen=True)
class AskResult:
    """The replies to a request.

    Attributes:
        replies: one checked reply per prompt, in the prompts' order; None where it is missing.
        reused: prompts whose reply was in the cache.
        generated: prompts whose reply was generated now; prompts that repeat another's text share its reply.
        missing: prompts without a valid reply.
        tokens: what the LLM read and wrote for them now, invalid replies included; None where the backend does not count.
    """

    replies: list[BaseModel | None]
    reused: int
    generated: int
    missing: int
    tokens: TokenUsage | None


def retry_decoding(first: Decoding, attempt: int) -> Decoding:
    """Return how a prompt is decoded in its n-th attempt.

    Attempt 0 decodes as the settings say. Later ones sample at :data:`RETRY_TEMPERATURE` at least, with their own seed.
    """
    if attempt == 0:
        return first
    text = f"{first.seed}/{attempt}".encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:4], "little") >> 1
    return replace(first, temperature=max(first.temperature, RETRY_TEMPERATURE), seed=seed)


def may_answer_now(identity: ModelIdentity) -> bool:
    """Whether a model that gave no valid reply to a prompt in an earlier run may give one in this run.

    A server may: it was overloaded then, or it samples anew. A model in this process may not: the seeds of all its attempts
    follow from the settings, so that it would repeat itself; ``llm_reply_attempts`` is how it gets further ones.
    """
    return identity.backend != "transformers"


def ask(
    backend: LLMBackend,
    prompts: Sequence[Prompt],
    reply_format: ReplyFormat,
    *,
    cache: ReplyCache,
    settings: HNLMSettings,
    description: str,
    earlier_attempts: int = 0,
    show_progress: bool = True,
) -> AskResult:
    """Get a valid reply to every prompt, from the cache or from the backend.

    Prompts with equal text are asked once. Prompts that are not cached go out by length, longest first: batches need little
    padding, memory runs out at once or not at all, and the time left is never underestimated. Each batch is stored before the
    next begins. An invalid reply is asked again, up to ``llm_reply_attempts`` times in all; a reply that stays invalid is
    missing and is not stored. A reply that took more than one attempt is stored under the key of
    the first: the key names the question.

    Args:
        backend: the LLM that answers.
        prompts: the prompts; any number, repetitions allowed.
        reply_format: the form of the replies.
        cache: where valid replies are kept.
        settings: ``llm_seed``, ``llm_reply_attempts`` and ``max_missing_share`` are read.
        description: what is asked, for progress bar and messages, such as ``item profiles``.
        earlier_attempts: how often earlier runs asked these prompts in vain; all attempts but the first then have seeds that
            those runs did not use.
        show_progress: whether to show a progress bar.

    Raises:
        BackendError: more than ``max_missing_share`` of the prompts have no valid reply, or the backend cannot answer at all.
        ArtifactError: the cache cannot be read or written.
    """
    first = Decoding(reply_format.max_new_tokens, reply_format.temperature, settings.llm_seed, reply_format.schema)
    keys = [content_key(backend.identity, prompt, first) for prompt in prompts]
    found: dict[str, BaseModel] = {}
    for key, text in cache.get_many(list(dict.fromkeys(keys))).items():
        if (reply := parse_reply(text, reply_format)) is not None:
            found[key] = reply
    reused = sum(key in found for key in keys)
    open_prompts = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
    asking = _Asking(backend, reply_format, cache, first, settings.llm_reply_attempts, earlier=earlier_attempts)
    tokens: TokenUsage | None = TokenUsage()
    if open_prompts:
        before = usage_of(backend)
        found |= asking.answer(open_prompts, description, show_progress=show_progress)
        after = usage_of(backend)
        tokens = None if before is None or after is None else after - before
    replies = [found.get(key) for key in keys]
    missing = replies.count(None)
    _report(missing, len(prompts), asking.bad_example, settings, description)
    return AskResult(replies, reused, len(prompts) - reused - missing, missing, tokens)


class _Asking:
    """One run over the prompts that are not cached."""

    def __init__(
        self, backend: LLMBackend, reply_format: ReplyFormat, cache: ReplyCache, first: Decoding, attempts: int, *, earlier: int
    ) -> None:
        self._backend = backend
        self._format = reply_format
        self._cache = cache
        self._first = first
        self._attempts = attempts
        self._earlier = earlier
        self.bad_example: str | None = None

    def answer(self, prompts: dict[str, Prompt], description: str, *, show_progress: bool) -> dict[str, BaseModel]:
        """Return the valid replies by key."""
        found: dict[str, BaseModel] = {}
        waiting = sorted(prompts, key=lambda key: len(prompts[key].system) + len(prompts[key].user), reverse=True)
        with tqdm(total=len(waiting), desc=description, unit="reply", smoothing=0.1, disable=not show_progress) as bar:
            for attempt in range(self._attempts):
                decoding = retry_decoding(self._first, attempt + self._earlier if attempt else 0)
                start = 0
                while start < len(waiting):
                    # Read each time: a backend lowers its batch size when memory runs out.
                    batch = waiting[start : start + max(1, self._backend.batch_size)]
                    bar.set_postfix_str(f"{len(batch)} at a time")
                    valid = self._answer_batch(batch, prompts, decoding)
                    found |= valid
                    start += len(batch)
                    bar.update(len(batch) if attempt + 1 == self._attempts else len(valid))
                waiting = [key for key in waiting if key not in found]
                if not waiting:
                    break
        return found

    def _answer_batch(self, batch: list[str], prompts: dict[str, Prompt], decoding: Decoding) -> dict[str, BaseModel]:
        try:
            texts = self._backend.generate([prompts[key] for key in batch], decoding)
        except AnswersCutShortError as error:
            self._keep(batch, error.answers)
            raise
        if len(texts) != len(batch):
            raise RuntimeError(f"backend returned {len(texts)} replies to {len(batch)} prompts")
        return self._keep(batch, texts)

    def _keep(self, batch: list[str], texts: Sequence[str | None]) -> dict[str, BaseModel]:
        """Store the valid replies among the texts, and return them by key."""
        valid: dict[str, BaseModel] = {}
        stored: dict[str, str] = {}
        for key, text in zip(batch, texts, strict=True):
            reply = parse_reply(text, self._format)
            if reply is not None:
                valid[key], stored[key] = reply, reply.model_dump_json()
            elif text is not None or self.bad_example is None:
                self.bad_example = text
        self._cache.put_many(stored)
        return valid


def _report(missing: int, total: int, example: str | None, settings: HNLMSettings, description: str) -> None:
    """Log missing replies; fail above the limit.

    Raises:
        BackendError: the share of missing replies is above ``max_missing_share``.
    """
    if not missing:
        return
    share = missing / total
    shown = "no complete reply" if example is None else f"for example {_shortened(example)}"
    text = f"{description}: {missing} of {total} replies ({share:.1%}) are missing after {settings.llm_reply_attempts} attempts"
    if share > settings.max_missing_share:
        raise BackendError(
            f"{text}, more than max_missing_share={settings.max_missing_share:.1%} allows; {shown}; choose another llm_model, "
            "or raise llm_reply_attempts or max_missing_share. Valid replies are kept"
        )
    _LOGGER.warning("%s; %s", text, shown)


def _shortened(text: str) -> str:
    """Return a text for one line of a message: control characters escaped, its middle left out when it is long."""
    shown = text if len(text) <= _EXAMPLE_CHARS else f"{text[: _EXAMPLE_CHARS // 2]} ... {text[-_EXAMPLE_CHARS // 2 :]}"
    return ascii(shown)
