"""The LLM behind an OpenAI-compatible server: vLLM, Ollama, ``transformers serve``, or a hosted service.

Requests go out through the official client, a bounded number at once, with its retries for 408, 409, 429, 5xx and broken
connections. The first request goes alone: it shows whether the server is up, knows the model, takes the key, and understands
``response_format``; a server that refuses that gets the schema in the instruction instead.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from recbole_hnlm.llm.protocol import ModelIdentity
from recbole_hnlm.utils.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from openai import AsyncOpenAI

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.protocol import Decoding, Prompt

__all__ = ["OpenAIBackend", "served_identity"]

_LOGGER = logging.getLogger("recbole_hnlm")
_T = TypeVar("_T")
_ROUNDS = 4  # requests per connection in one generate() call, so that slow replies do not leave the others idle
_CONNECT_SECONDS = 10.0
_REASON_CHARS = 200


def served_identity(settings: HNLMSettings) -> ModelIdentity:
    """Return the identity of a served model, which needs neither address nor key."""
    return ModelIdentity("openai", settings.llm_model, "", "")


class _RequestFailedError(Exception):
    """One prompt got no answer; others may."""


class OpenAIBackend:
    """Answers prompts through a server.

    Args:
        settings: ``llm_base_url``, ``llm_model``, ``llm_api_key_env``, ``llm_concurrency``, ``llm_timeout`` and
            ``llm_max_retries`` are read. The key comes from the named environment variable only; it is never stored, logged or
            part of the identity. A server on this machine needs none.

    Raises:
        ConfigError: ``llm_base_url`` is not an http(s) address.
        BackendError: the server is elsewhere and the environment variable of the key is not set.
    """

    def __init__(self, settings: HNLMSettings) -> None:
        self._settings = settings
        address = urlsplit(settings.llm_base_url or "")
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise ConfigError(f"llm_base_url {settings.llm_base_url!r} is not an address such as http://localhost:8000/v1")
        host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
        # Without user and password, which an address may carry.
        self._shown_address = f"{address.scheme}://{host}{f':{address.port}' if address.port else ''}{address.path}"
        self._key = os.environ.get(settings.llm_api_key_env, "").strip()
        if not self._key and not _is_loopback(address.hostname):
            raise BackendError(
                f"llm_backend openai at {self._shown_address} needs a key: set the environment variable "
                f"{settings.llm_api_key_env}, or name another one with llm_api_key_env"
            )
        self._client: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sends_schema = True
        self._probed = False
        self._failures_in_a_row = 0
        self._last_failure = ""

    @property
    def identity(self) -> ModelIdentity:
        """The served model; a server does not state revision and precision."""
        return served_identity(self._settings)

    @property
    def batch_size(self) -> int:
        """Prompts that one :meth:`generate` should get: a few rounds of concurrent requests."""
        return self._settings.llm_concurrency * _ROUNDS

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        """Answer prompts; see :meth:`recbole_hnlm.llm.protocol.LLMBackend.generate`.

        When the server stops answering in the middle, the answers so far are returned, the others are None, and the next call
        begins by asking one prompt alone.

        Raises:
            BackendError: the server cannot be reached, refuses the key, or does not know the model.
        """
        if not prompts:
            return []
        return self._run(self._generate(list(prompts), decoding))

    def close(self) -> None:
        """Close the connections and end the thread that serves them."""
        if self._loop is None:
            return
        if self._client is not None:
            self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop = self._client = None

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in this backend's own thread, which works inside a caller's running event loop too."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(self._loop,), name="recbole-hnlm-openai", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _generate(self, prompts: list[Prompt], decoding: Decoding) -> list[str | None]:
        replies: list[str | None] = []
        if not self._probed:
            replies.append(await self._probe(prompts[0], decoding))
        slots = asyncio.Semaphore(self._settings.llm_concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(prompt, decoding, slots)) for prompt in prompts[len(replies) :]]
        except ExceptionGroup as errors:
            # One line for the user: whatever refused the first request refuses the others.
            raise errors.exceptions[0] from None
        return replies + [task.result() for task in tasks]

    async def _probe(self, prompt: Prompt, decoding: Decoding) -> str | None:
        """Ask one prompt alone; decides whether the schema goes out as ``response_format``."""
        from openai import BadRequestError, UnprocessableEntityError  # noqa: PLC0415

        refusals = (BadRequestError, UnprocessableEntityError)
        try:
            try:
                reply = await self._request(prompt, decoding)
            except refusals as refusal:
                if not self._sends_schema:
                    raise
                self._sends_schema = False
                reply = await self._request(prompt, decoding)
                _LOGGER.warning(
                    "the server at %s refuses response_format (%s); the schema is stated in the prompt instead",
                    self._shown_address,
                    self._reason(refusal),
                )
        except refusals as refusal:
            self._sends_schema = True
            raise BackendError(
                f"the server at {self._shown_address} refuses the request for llm_model {self._settings.llm_model!r}: "
                f"{self._reason(refusal)}"
            ) from None
        except _RequestFailedError as failure:
            raise BackendError(
                f"the server at {self._shown_address} does not answer ({failure}) after "
                f"{self._settings.llm_max_retries} retries; check that it runs, llm_base_url and llm_timeout"
            ) from None
        self._probed = True
        self._failures_in_a_row = 0
        return reply

    async def _answer(self, prompt: Prompt, decoding: Decoding, slots: asyncio.Semaphore) -> str | None:
        from openai import APIStatusError  # noqa: PLC0415

        async with slots:
            if not self._probed:
                return None  # the server stopped answering while this prompt waited
            try:
                reply = await self._request(prompt, decoding)
            except APIStatusError as refusal:
                # Such as a prompt longer than the server's context: a matter of this prompt.
                _LOGGER.warning("a prompt was refused: %s", self._reason(refusal))
                return None
            except _RequestFailedError as failure:
                self._count_failure(str(failure))
                return None
            self._failures_in_a_row = 0
            return reply

    def _count_failure(self, reason: str) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(2, self._settings.llm_concurrency) and self._probed:
            self._probed = False
            _LOGGER.warning("the server at %s stopped answering (%s)", self._shown_address, reason)

    async def _request(self, prompt: Prompt, decoding: Decoding) -> str:
        """Send one prompt, with the client's retries.

        Raises:
            BackendError: key refused or model unknown: no prompt can be answered.
            APIStatusError: the server refuses this request (another 4xx).
            _RequestFailedError: no usable answer: connection, time-out, 429 or 5xx after retries, or an unusable body.
        """
        import openai  # noqa: PLC0415

        try:
            completion = await self._connect().chat.completions.create(**self._body(prompt, decoding))
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise BackendError(
                f"the server at {self._shown_address} refuses the key in {self._settings.llm_api_key_env} "
                f"(status {error.status_code}); set that environment variable to a valid key"
            ) from None
        except openai.NotFoundError as error:
            raise BackendError(
                f"the server at {self._shown_address} does not know llm_model {self._settings.llm_model!r}, "
                f"or llm_base_url has a wrong path (status 404: {self._reason(error)})"
            ) from None
        except (openai.RateLimitError, openai.InternalServerError) as error:
            raise _RequestFailedError(f"status {error.status_code}") from None
        except openai.APIStatusError:
            raise
        except openai.APITimeoutError:
            raise _RequestFailedError(f"no answer within llm_timeout={self._settings.llm_timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            raise _RequestFailedError(f"{type(cause).__name__}: {cause}" if cause else "connection failed") from None
        except (openai.APIError, ValueError) as error:
            raise _RequestFailedError(f"unreadable answer: {type(error).__name__}") from None
        return _text_of(completion)

    def _body(self, prompt: Prompt, decoding: Decoding) -> dict[str, Any]:
        system = prompt.system
        body: dict[str, Any] = {
            "model": self._settings.llm_model,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "seed": decoding.seed,
        }
        if self._sends_schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": decoding.schema, "strict": True},
            }
        else:
            schema = json.dumps(decoding.schema, ensure_ascii=True)
            system = f"{system}\n\nReply with one JSON object that satisfies this JSON schema, and with nothing else:\n{schema}"
        turns = [*prompt.example_texts, prompt.user]
        body["messages"] = [
            {"role": "system", "content": system},
            *({"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(turns)),
        ]
        return body

    def _connect(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI, Timeout  # noqa: PLC0415

            timeout = self._settings.llm_timeout
            self._client = AsyncOpenAI(
                base_url=self._settings.llm_base_url,
                api_key=self._key or "none",
                timeout=Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
                max_retries=self._settings.llm_max_retries,
            )
        return self._client

    def _reason(self, error: Exception) -> str:
        """Return an error as one short line; a server's text may echo the key, which is taken out."""
        text = str(getattr(error, "message", error))
        if self._key:
            text = text.replace(self._key, "***")
        text = ascii(" ".join(text.split()))[1:-1]
        return text if len(text) <= _REASON_CHARS else f"{text[:_REASON_CHARS]} ..."


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text_of(completion: Any) -> str:
    """Read the text of a chat completion. The client does not check a body's form, so any part may be absent.

    Raises:
        _RequestFailedError: there is no text in it.
    """
    choices = getattr(completion, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    content = getattr(message, "content", None)
    if not isinstance(content, str):
        raise _RequestFailedError("unreadable answer: no choices[0].message.content")
    return content
