"""The LLM behind OpenAI-compatible servers: vLLM, Ollama, llama.cpp, ``transformers serve``, or a hosted service."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from recbole_hnlm.llm.http import read_key
from recbole_hnlm.llm.protocol import ModelIdentity
from recbole_hnlm.llm.replica import Replica
from recbole_hnlm.llm.replicas import Replicas
from recbole_hnlm.utils.addresses import parse_addresses
from recbole_hnlm.utils.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.protocol import Decoding, Prompt, TokenUsage

__all__ = ["OpenAIBackend", "served_identity"]

_T = TypeVar("_T")
_ROUNDS = 4  # requests per connection in one generate() call, so that slow replies do not leave the others idle


def served_identity(settings: HNLMSettings) -> ModelIdentity:
    """Return the identity of a served model, which needs neither address nor key."""
    return ModelIdentity("openai", settings.llm_model, "", "")


class OpenAIBackend:
    """Answers prompts through one or several servers of the same model.

    Args:
        settings: ``llm_base_url``, ``llm_model``, ``llm_api_key_env``, ``llm_concurrency``, ``llm_timeout``,
            ``llm_thinking_tokens`` and ``llm_max_retries`` are read. The key comes from the named environment variable only; it
            is never stored, logged or part of the identity. A server on this machine needs none.

    Raises:
        ConfigError: ``llm_base_url`` is not one or several http(s) addresses.
        BackendError: a server is elsewhere and the environment variable of the key is not set, or it holds no key.
    """

    def __init__(self, settings: HNLMSettings) -> None:
        self._settings = settings
        addresses = parse_addresses(settings.llm_base_url or "", settings.llm_api_key_env)
        key = read_key(settings.llm_api_key_env)
        far = next((address for address in addresses if not address.is_loopback), None)
        if far and not key:
            raise BackendError(
                f"llm_backend openai at {far.shown} needs a key: set the environment variable "
                f"{settings.llm_api_key_env}, or name another one with llm_api_key_env"
            )
        replicas = [Replica(address, key, settings) for address in addresses]
        self._replicas = Replicas(replicas, settings.llm_concurrency, settings.llm_max_retries)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def identity(self) -> ModelIdentity:
        """The served model; a server does not state revision and precision."""
        return served_identity(self._settings)

    @property
    def batch_size(self) -> int:
        """Prompts that one :meth:`generate` should get: a few rounds of concurrent requests."""
        return self._settings.llm_concurrency * _ROUNDS

    @property
    def usage(self) -> TokenUsage:
        """Tokens of all servers so far, negotiation and replies that were refused included."""
        return self._replicas.usage

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        """Answer prompts; see :meth:`recbole_hnlm.llm.protocol.LLMBackend.generate`.

        Raises:
            AnswersCutShortError: no server answers any more, or all refuse what is asked; some prompts were answered before.
            BackendError: no server can be reached, or all refuse the key, do not know the model, and the like.
            MissingDependencyError: the environment's proxy needs a package that is not installed.
        """
        return self._run(self._replicas.ask(list(prompts), decoding)) if prompts else []

    def close(self) -> None:
        """Log what each server did, close the connections and end the thread that serves them."""
        if self._loop is None:
            return
        self._replicas.log_figures()
        self._run(self._replicas.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop = None

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


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
