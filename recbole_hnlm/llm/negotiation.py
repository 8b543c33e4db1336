"""Finding out which parameters a server takes, one at a time, and whether it obeys a schema.

OpenAI-compatible servers differ: some refuse ``max_tokens`` (they want ``max_completion_tokens``), a temperature, a seed, a
system message or ``response_format``, and vLLM since 0.12 ignores fields that it does not know, with status 200. So the first
request begins with everything and gives up what the server refuses; then a probe, whose schema forces a reply that its prompt
would not give, shows whether the grammar works.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from recbole_hnlm.llm.http import NoAnswerError
from recbole_hnlm.llm.protocol import Decoding, Prompt
from recbole_hnlm.llm.replies import without_thinking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recbole_hnlm.llm.completions import Completion

__all__ = ["Dialect", "RefusedError", "negotiate", "prove_schema", "request_body"]

_PROBE_REPLY = "hnlm-7391"
_PROBE_TOKENS = 64


class RefusedError(Exception):
    """The server refuses a request.

    Args:
        line: what happened, for the user.
        reason: in its own words, cleaned.
        parameter: the parameter that it names in a field of its own; may be empty.
        status: its status code.
    """

    def __init__(self, line: str, reason: str = "", parameter: str = "", status: int = 400) -> None:
        super().__init__(line)
        self.reason = reason
        self.parameter = parameter
        self.status = status

    @property
    def is_about_size(self) -> bool:
        """Whether a prompt or its reply would be too long, which no other choice of parameters changes."""
        return self.status in {413, 414} or _TOO_LONG.search(self.reason) is not None


_TOO_LONG = re.compile(
    r"(?i)context (length|window|size)|too (long|large|big|many tokens)|maximum (context|length|allowed)|exceed"
)
# Which words of a refusal point at which parameter, the most specific ones first.
_POINTERS = {
    "limit": re.compile(r"(?i)max_(completion_|new_)?tokens"),
    "schema": re.compile(r"(?i)response_format|json_?schema|json_object|json mode|guided|grammar|structured|schema"),
    "temperature": re.compile(r"(?i)temperature"),
    "seed": re.compile(r"(?i)\bseed\b"),
    "system": re.compile(r"(?i)\bsystem\b|roles? must alternate|developer"),
}
# What a parameter may be, the best choice first.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "limit": ("max_tokens", "max_completion_tokens", None),
    "schema": ("json_schema", "json_object", None),
    "temperature": (True, False),
    "seed": (True, False),
    "system": (True, False),
}


@dataclass(frozen=True)
class Dialect:
    """The parameters that a server takes.

    Attributes:
        limit: name of the limit of tokens; None sends none.
        schema: form of ``response_format``; None sends none.
        temperature: whether a temperature is sent.
        seed: whether a seed is sent.
        system: whether the instruction goes out as a system message; otherwise it opens the first user message.
        obeys: whether the server's schema or JSON mode was seen to work; None where that is not known.
    """

    limit: Literal["max_tokens", "max_completion_tokens"] | None = "max_tokens"
    schema: Literal["json_schema", "json_object"] | None = "json_schema"
    temperature: bool = True
    seed: bool = True
    system: bool = True
    obeys: bool | None = None

    @property
    def states_schema(self) -> bool:
        """Whether the instruction states the schema, since no grammar is known to enforce it."""
        return self.schema != "json_schema" or self.obeys is None

    def worse(self, parameter: str) -> Dialect | None:
        """Return the dialect with the next choice for a parameter, or None where there is none."""
        choices = _CHOICES[parameter]
        place = choices.index(getattr(self, parameter)) + 1
        return replace(self, **{parameter: choices[place]}) if place < len(choices) else None

    def describe(self) -> str:
        """Say what is sent, for the log."""
        sent = [self.limit or "no limit of tokens", "temperature" if self.temperature else "no temperature"]
        sent += ["seed" if self.seed else "no seed", "system message" if self.system else "instruction in the user's message"]
        return ", ".join([*sent, self._described_schema()])

    def _described_schema(self) -> str:
        if self.schema == "json_schema":
            return "JSON schema (enforced)" if self.obeys else "JSON schema (whether it is enforced is not known)"
        return "JSON mode, schema in the prompt" if self.schema else "schema in the prompt only, not enforced"


def request_body(
    model: str,
    prompt: Prompt,
    decoding: Decoding,
    dialect: Dialect,
    thinking_tokens: int = 0,
    *,
    states_schema: bool | None = None,
) -> dict[str, Any]:
    """Return the body of a request to ``/chat/completions``.

    Args:
        model: the served name.
        prompt: instruction, examples and data.
        decoding: limit, temperature, seed and schema.
        dialect: what of it the server takes.
        thinking_tokens: tokens on top of the reply's.
        states_schema: whether the instruction states the schema; None leaves that to the dialect.
    """
    body: dict[str, Any] = {"model": model}
    if dialect.limit:
        body[dialect.limit] = decoding.max_new_tokens + thinking_tokens
    if dialect.temperature:
        body["temperature"] = decoding.temperature
    if dialect.seed:
        body["seed"] = decoding.seed
    if dialect.schema == "json_schema":
        schema = {"name": "reply", "schema": decoding.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif dialect.schema:
        body["response_format"] = {"type": "json_object"}
    system = prompt.system
    if dialect.states_schema if states_schema is None else states_schema:
        schema_text = json.dumps(decoding.schema, ensure_ascii=True)
        system = (
            f"{system}\n\nReply with one JSON object that satisfies this JSON schema, and with nothing else:\n{schema_text}"
        )
    turns = [*prompt.example_texts, prompt.user]
    if dialect.system:
        opening = [{"role": "system", "content": system}]
    else:
        opening, turns[0] = [], f"{system}\n\n{turns[0]}"
    body["messages"] = [
        *opening,
        *({"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(turns)),
    ]
    return body


async def negotiate(send: Callable[[Dialect], Awaitable[Completion]]) -> tuple[Dialect, Completion, list[str]]:
    """Find the parameters that a server takes.

    A refusal that names a parameter costs that parameter alone. After one that names none, everything optional is left out, and
    each parameter comes back on its own as long as the server takes it.

    Args:
        send: sends the first prompt in a dialect; raises :class:`RefusedError`.

    Returns:
        The dialect, the answer in it, and the server's reasons for what it refused.

    Raises:
        RefusedError: the server refuses the request in every dialect, or for its size.
    """
    dialect = Dialect(obeys=True)
    reasons: list[str] = []
    while True:
        try:
            return dialect, await send(dialect), reasons
        except RefusedError as refusal:
            if refusal.is_about_size:
                raise
            reasons.append(refusal.reason)
            worse = _without_named(dialect, refusal)
            if worse is None:
                try:
                    return (*await _from_below(send, dialect), reasons)
                except RefusedError:
                    raise refusal from None
            dialect = worse


def _without_named(dialect: Dialect, refusal: RefusedError) -> Dialect | None:
    for text in (refusal.parameter, refusal.reason):
        for parameter, pointer in _POINTERS.items():
            if pointer.search(text) and (worse := dialect.worse(parameter)) is not None:
                return worse
    return None


async def _from_below(send: Callable[[Dialect], Awaitable[Completion]], wanted: Dialect) -> tuple[Dialect, Completion]:
    """Begin with nothing optional, and take in what the server takes, one parameter at a time."""
    dialect = replace(wanted, **{parameter: choices[-1] for parameter, choices in _CHOICES.items()})
    completion = await send(dialect)
    for parameter, choices in _CHOICES.items():
        for choice in choices[choices.index(getattr(wanted, parameter)) : -1]:
            richer = replace(dialect, **{parameter: choice})
            try:
                completion = await send(richer)
            except RefusedError:
                continue
            dialect = richer
            break
    return dialect, completion


async def prove_schema(
    send: Callable[[Prompt, Decoding, Dialect], Awaitable[Completion]], dialect: Dialect, max_new_tokens: int
) -> Dialect:
    """Find out whether a server obeys a schema that it took, by a probe whose prompt asks for another reply.

    Args:
        send: sends a prompt without stating the schema in it, since only a grammar may bring the reply about; raises
            :class:`RefusedError`.
        dialect: what the server takes.
        max_new_tokens: limit of the run's replies, which the probe's does not exceed.

    Returns:
        The dialect with the best form of ``response_format`` that works, and whether it was seen to.
    """
    if dialect.schema is None:
        return replace(dialect, obeys=False)
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": [_PROBE_REPLY]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    prompt = Prompt("You answer in plain words and never in JSON.", "Say hello to me, in one word of plain text, not in JSON.")
    decoding = Decoding(min(max_new_tokens, _PROBE_TOKENS), 0.0, 0, schema)
    tried = replace(dialect, obeys=True)
    if dialect.schema == "json_schema":
        found = await _probe(send, prompt, decoding, tried)
        if found is None:
            return replace(dialect, obeys=None)
        if found == {"answer": _PROBE_REPLY}:
            return tried
        tried = replace(tried, schema="json_object")
    found = await _probe(send, prompt, decoding, tried)
    return tried if isinstance(found, dict) else replace(dialect, schema=None, obeys=False)


async def _probe(
    send: Callable[[Prompt, Decoding, Dialect], Awaitable[Completion]], prompt: Prompt, decoding: Decoding, dialect: Dialect
) -> Any:
    """Return the JSON value of a probe's reply, False where it is none, None where the probe says nothing."""
    try:
        completion = await send(prompt, decoding, dialect)
    except (RefusedError, NoAnswerError):
        return None
    text = without_thinking(completion.text or "").strip()
    if not text or (completion.is_cut and text.startswith("{")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return False
