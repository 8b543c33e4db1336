"""What a stage needs of a language model: prompts in, reply texts out, and an identity for caches and manifests.

A backend is a class with the four members of :class:`LLMBackend`; :func:`recbole_hnlm.llm.factory.load_backend` chooses one by
the setting ``llm_backend``. Validation, retries and the reply cache live above the backends
(:mod:`recbole_hnlm.llm.asking`), so a new backend only turns prompts into text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from recbole_hnlm.utils.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AnswersCutShortError",
    "CountsTokens",
    "Decoding",
    "LLMBackend",
    "ModelIdentity",
    "Prompt",
    "TokenUsage",
    "usage_of",
]


class AnswersCutShortError(BackendError):
    """A backend stops answering in the middle of a call; what it has answered is kept.

    Args:
        line: why, for the user.
        answers: one text per prompt of the call, None where there is no answer.
    """

    def __init__(self, line: str, answers: Sequence[str | None]) -> None:
        super().__init__(line)
        self.answers = list(answers)


@dataclass(frozen=True)
class Prompt:
    """One request.

    Attributes:
        system: the instruction, shared by all prompts of a stage.
        user: a JSON document with the data; it may hold any text and is never read as template or special tokens.
        examples: worked examples, (user message, reply) each, shared by all prompts of a stage; they are sent as earlier turns
            of the conversation, which a small model follows better than examples inside the instruction.
    """

    system: str
    user: str
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def head(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What all prompts of a stage share: the instruction and the examples."""
        return self.system, self.examples

    @property
    def example_texts(self) -> tuple[str, ...]:
        """The examples' messages in their order: user message, reply, user message, ..."""
        return tuple(text for example in self.examples for text in example)


@dataclass(frozen=True)
class Decoding:
    """How a reply is decoded.

    Attributes:
        max_new_tokens: tokens that a reply may have at most.
        temperature: sampling temperature; 0 takes the most likely token.
        seed: seed of sampling; without effect at temperature 0.
        schema: JSON schema that the reply satisfies.
    """

    max_new_tokens: int
    temperature: float
    seed: int
    schema: dict[str, Any]

    def key(self) -> str:
        """Return a text that is equal exactly for equal decodings (64 hex digits); property order in the schema counts."""
        parts = [self.max_new_tokens, float(self.temperature), self.seed, self.schema]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answers, in as much detail as its replies can differ by; never with a key or an address.

    Attributes:
        backend: ``transformers`` or ``openai``.
        name: embedded name, folder name, hub id or served name.
        revision: package version, content hash or commit; empty where a server does not say.
        precision: compute type and quantisation, such as ``bfloat16`` or ``bfloat16+4bit``.
    """

    backend: str
    name: str
    revision: str
    precision: str

    def key(self) -> str:
        """Return the identity as one line of JSON, for cache keys and manifests."""
        return json.dumps([self.backend, self.name, self.revision, self.precision], ensure_ascii=True)


@dataclass(frozen=True)
class TokenUsage:
    """Tokens that went through a language model.

    Attributes:
        prompt: tokens read, those of a shared beginning once for each prompt, as a server bills them.
        completion: tokens written, thinking and replies that were refused included.
        uncounted: answers whose tokens are unknown, since the server does not say.
    """

    prompt: int = 0
    completion: int = 0
    uncounted: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Add up number by number."""
        return TokenUsage(self.prompt + other.prompt, self.completion + other.completion, self.uncounted + other.uncounted)

    def __sub__(self, earlier: TokenUsage) -> TokenUsage:
        """What came after an earlier state."""
        return self + TokenUsage(-earlier.prompt, -earlier.completion, -earlier.uncounted)


class LLMBackend(Protocol):
    """A language model that answers prompts."""

    @property
    def identity(self) -> ModelIdentity:
        """The model; known without loading weights, so that a run whose replies are all cached loads none."""

    @property
    def batch_size(self) -> int:
        """Number of prompts that one call of :meth:`generate` should get."""

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        """Answer prompts.

        Args:
            prompts: the prompts; any number.
            decoding: how to decode all of them.

        Returns:
            One text per prompt, in the same order; None where there is no complete answer (the reply outgrew
            ``max_new_tokens``, or the server failed after its retries).

        Raises:
            BackendError: no prompt can be answered: no memory, a dead server, a refused key, an unknown model. It is an
                :class:`AnswersCutShortError` where some were answered before.
        """

    def close(self) -> None:
        """Release weights and connections; the backend is not used afterwards."""


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that also counts tokens; one that does not is asked all the same, and its tokens are unknown."""

    @property
    def usage(self) -> TokenUsage:
        """Tokens of everything that was asked so far."""


def usage_of(backend: LLMBackend) -> TokenUsage | None:
    """Return what a backend has used so far; None where it does not count."""
    return backend.usage if isinstance(backend, CountsTokens) else None
