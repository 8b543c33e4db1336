"""One server: asking it, what it takes, how it is, and what it did."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.llm.completions import read_completion
from recbole_hnlm.llm.http import HttpClient, NoAnswerError, parse_json
from recbole_hnlm.llm.negotiation import Dialect, RefusedError, negotiate, prove_schema, request_body
from recbole_hnlm.llm.statuses import Verdict, meaning, named_parameter, reason_of, retry_after, verdict
from recbole_hnlm.utils.errors import BackendError

if TYPE_CHECKING:
    import asyncio

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.completions import Completion
    from recbole_hnlm.llm.http import Answer
    from recbole_hnlm.llm.protocol import Decoding, Prompt
    from recbole_hnlm.utils.addresses import ServerAddress
    from recbole_hnlm.utils.errors import HNLMError

__all__ = ["Figures", "Replica"]

_LOGGER = logging.getLogger("recbole_hnlm")
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
_MOST_LINES = 3  # prompts without a reply that are logged one by one


@dataclass
class Figures:
    """What a server did in a run.

    Attributes:
        requests: requests that were sent, probes and repetitions included.
        replies: replies with a text.
        errors: requests without a usable answer, refusals included.
        prompt_tokens: tokens read, as far as the server says.
        completion_tokens: tokens written, likewise.
        uncounted: answers of which the server does not say it.
        seconds: time of all answered requests together.
        answered: requests with a chat completion.
    """

    requests: int = 0
    replies: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    seconds: float = 0.0
    answered: int = 0

    def describe(self) -> str:
        """Write the figures for the log."""
        latency = f"{self.seconds / self.answered:.2f} s each" if self.answered else "none answered"
        tokens = f"{self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
        return f"{self.requests:,} requests ({latency}), {self.replies:,} replies, {self.errors:,} errors, {tokens}"


class Replica:
    """A server that answers prompts.

    Args:
        address: where it is.
        key: its key; may be empty.
        settings: ``llm_model``, ``llm_api_key_env``, ``llm_timeout``, ``llm_concurrency`` and ``llm_thinking_tokens`` are read.

    Attributes:
        dialect: what it takes; None before the first answer.
        figures: what it did.
        is_ready: whether its last answer was a usable one; otherwise one prompt is sent at a time, as a trial.
        owner: the task whose prompt is its trial, also while that task waits between two attempts; None without a trial.
        in_flight: prompts that it works on.
        failures: failed attempts since its last usable answer.
        retry_at: time (of the monotonic clock) before which no trial is due.
        refusal: why nothing can be asked of it in this run; None while something can.
        last_fault: the last failed attempt's reason.
    """

    def __init__(self, address: ServerAddress, key: str, settings: HNLMSettings) -> None:
        self._client = HttpClient(address, key, settings.llm_timeout, settings.llm_concurrency)
        self._settings = settings
        self._has_key = bool(key)
        self._unanswered = 0
        self._pause = _FIRST_PAUSE
        self.shown = address.shown
        self.dialect: Dialect | None = None
        self.figures = Figures()
        self.is_ready = False
        self.owner: asyncio.Task[Any] | None = None
        self.in_flight = self.failures = 0
        self.retry_at = 0.0
        self.refusal: HNLMError | None = None
        self.last_fault = ""

    async def answer(self, prompt: Prompt, decoding: Decoding) -> str | None:
        """Ask a prompt once; the first one also finds out what the server takes.

        Returns:
            The text, or None where the server answers without one or refuses this prompt.

        Raises:
            NoAnswerError: no usable answer; another attempt may get one.
            HNLMError: the server can answer no prompt.
        """
        if self.dialect is None:
            completion = await self._get_to_know(prompt, decoding)
        else:
            try:
                completion = await self._send(prompt, decoding, self.dialect)
            except RefusedError as refusal:
                self._log_unanswered(str(refusal))
                return None
        if completion.text is None:
            self._log_unanswered(self._why_none(completion))
        else:
            self.figures.replies += 1
        return completion.text

    def succeeded(self) -> None:
        """Note a usable answer."""
        self.is_ready, self.failures, self._pause = True, 0, _FIRST_PAUSE

    def leave_out(self) -> None:
        """Send nothing but a trial now and then; the pauses between them double."""
        self.is_ready = False
        self.retry_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _get_to_know(self, prompt: Prompt, decoding: Decoding) -> Completion:
        try:
            dialect, completion, reasons = await negotiate(lambda dialect: self._send(prompt, decoding, dialect))
            if completion.text is None and (completion.is_cut or completion.thought):
                raise BackendError(self._why_none(completion))
            proven = await prove_schema(
                lambda *probe: self._send(*probe, states_schema=False), dialect, decoding.max_new_tokens
            )
            if (proven.schema, proven.states_schema) != (dialect.schema, dialect.states_schema):
                # So that a reply does not depend on whether its prompt was the first.
                completion = await self._send(prompt, decoding, proven)
        except RefusedError as refusal:
            raise BackendError(f"{refusal} (llm_model {self._settings.llm_model})") from None
        log = _LOGGER.info if proven == Dialect(obeys=True) else _LOGGER.warning
        refused = f"; it refuses other requests: {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
        ignored = f"; it takes a response_format {dialect.schema} and ignores it" if proven.schema != dialect.schema else ""
        log("the server at %s is sent: %s%s%s", self.shown, proven.describe(), refused, ignored)
        self.dialect = proven
        return completion

    async def _send(
        self, prompt: Prompt, decoding: Decoding, dialect: Dialect, *, states_schema: bool | None = None
    ) -> Completion:
        """Send one request and read its answer.

        Raises:
            RefusedError: the server refuses the request.
            NoAnswerError: no usable answer.
            BackendError: no request can succeed.
        """
        body = request_body(
            self._settings.llm_model, prompt, decoding, dialect, self._settings.llm_thinking_tokens, states_schema=states_schema
        )
        self.figures.requests += 1
        start = time.monotonic()
        try:
            answer = await self._client.request("POST", "/chat/completions", body)
            self._judge(answer)
            completion = read_completion(parse_json(answer.body))
        except (NoAnswerError, RefusedError, BackendError):
            self.figures.errors += 1
            raise
        self.figures.answered += 1
        self.figures.seconds += time.monotonic() - start
        self.figures.prompt_tokens += completion.prompt_tokens
        self.figures.completion_tokens += completion.completion_tokens
        self.figures.uncounted += completion.prompt_tokens == 0
        return completion

    def _judge(self, answer: Answer) -> None:
        judged = verdict(answer)
        if judged is Verdict.DONE:
            return
        # What comes up again and again is named together with the server where it is reported.
        who = "it" if judged is Verdict.AGAIN else ""
        line = meaning(answer, self._client, self._settings.llm_api_key_env, self._has_key, who)
        if judged is Verdict.AGAIN:
            raise NoAnswerError(line, retry_after=retry_after(answer))
        if judged is Verdict.PROMPT:
            raise RefusedError(line, reason_of(answer, self._client), named_parameter(answer), answer.status)
        if answer.status in {404, 410}:
            line = f"{line} (llm_model {self._settings.llm_model})"
        raise BackendError(line)

    def _why_none(self, completion: Completion) -> str:
        if completion.is_cut or completion.thought:
            spent = f"{completion.completion_tokens:,} tokens" if completion.completion_tokens else "all its tokens"
            doing = "thinking" if completion.thought else "a reply of which nothing came"
            return (
                f"the model at {self.shown} spent {spent} on {doing}: raise the limit with llm_thinking_tokens "
                f"(now {self._settings.llm_thinking_tokens}; such as 2000), or switch thinking off at the server"
            )
        why = self._client.clean(completion.why_none) or "it gives no reason"
        return f"the server at {self.shown} answers without a text ({why})"

    def _log_unanswered(self, why: str) -> None:
        self._unanswered += 1
        if self._unanswered <= _MOST_LINES:
            more = "; further ones are not logged" if self._unanswered == _MOST_LINES else ""
            _LOGGER.warning("a prompt got no reply: %s%s", why, more)
