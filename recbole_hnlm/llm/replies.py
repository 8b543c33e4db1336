"""The replies of the LLM: their fields, word limits, JSON schemas, and how a text is read into them.

The method asks for ``{"summarization": <= 100 words, "reasoning": ...}`` (profiles; HNLMRec, arXiv 2504.04726, semantic
profiles) and ``{"hard_negative_item": <= 20 words or "None", "reasoning": ...}`` (hard negatives, text route).

Word limits are part of the schema, as a regular expression: ``word( word){0,n-1}`` with words of 1 to
:data:`MAX_WORD_CHARS` characters that are neither white space, nor quote, nor backslash, nor control character, and one mark of
punctuation at their end (inside a word, a model that is out of words goes on as ``tale,1,1,1``). A backend that
decodes under a grammar thus cannot exceed a limit, cannot need an escape, and always reaches the closing brace. The pydantic
models check the same word limits on whatever a server without a grammar says, and that a field is no longer than so many words
can be under the grammar: a script without spaces may write one long word, but not a text of any length.

Departure from the method: ``reasoning`` has a limit too, since the stages use only the other field and every token costs time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError, create_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recbole_hnlm.config.settings import HNLMSettings

__all__ = [
    "MAX_WORD_CHARS",
    "HardNegative",
    "Profile",
    "ReplyFormat",
    "hard_negative_format",
    "parse_reply",
    "profile_format",
    "without_thinking",
]

MAX_WORD_CHARS = 24
"""Most characters of a word while decoding under a grammar; a longer run (a URL, unspaced script) is broken up."""

_CHARS_PER_WORD = MAX_WORD_CHARS + 2  # with its mark of punctuation and the space before the next
_TOKENS_FOR_STRUCTURE = 40  # braces, quotes, field names and the end token, at about a token per two characters
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_THINKING = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[think]", "[/think]"))
_MOST_BRACES = 200  # opening braces that are tried in one reply
# Characters of a word: all but those on which str.split() splits (so that the grammar and the validators count the same words),
# quote, backslash, marks of punctuation, control, format and private characters. Stated as ranges that begin and end within one
# length of UTF-8 (U+07FF, U+FFFF): across such a border, and for a negated class, xgrammar 0.2 lets malformed UTF-8 through.
_WORD_CHARACTER = (
    "[#-+\\-/0-9<->@-\\[\\]-~\u00a1-\u07ff\u0800-\u167f\u1681-\u180d\u180f-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\u2fff"
    "\u3001-\ud7ff\uf900-\ufefe\uff01-\uffef\U00010000-\U000dffff]"
)


def _collapse_white_space(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _refuse_control_characters(value: str) -> str:
    if _CONTROL_CHARACTER.search(value):
        raise ValueError("control characters in the text")
    return value


Text = Annotated[
    str,
    StringConstraints(strict=True, min_length=1),
    BeforeValidator(_collapse_white_space),
    AfterValidator(_refuse_control_characters),
]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Profile(_Reply):
    """What a user enjoys, or who enjoys an item.

    Attributes:
        summarization: the profile; at most ``profile_max_words`` words in a reply read with :func:`profile_format`.
        reasoning: why; at most ``reasoning_max_words`` words.
    """

    summarization: Text
    reasoning: Text


class HardNegative(_Reply):
    """An item that looks right for a user but is not.

    Attributes:
        hard_negative_item: the name of the item, at most ``negative_max_words`` words, or "None".
        reasoning: why; at most ``reasoning_max_words`` words.
    """

    hard_negative_item: Text
    reasoning: Text

    @property
    def is_none(self) -> bool:
        """Whether the LLM says that there is no such item."""
        return self.hard_negative_item.strip("\"'.").casefold() == "none"


@dataclass(frozen=True)
class ReplyFormat:
    """The form of a reply.

    Attributes:
        model: pydantic model that reads and checks a reply.
        schema: JSON schema of the same form, for decoding under a grammar and for servers.
        max_new_tokens: enough for the longest reply that the schema allows when a character takes at most one token, as ASCII
            text does; a longer reply counts as no answer.
        temperature: sampling temperature of the first attempt; 0 decodes greedily.
    """

    model: type[BaseModel]
    schema: dict[str, Any]
    max_new_tokens: int
    temperature: float = 0.0


def _words_at_most(limit: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        count = len(value.split())
        if count > limit:
            raise ValueError(f"{count} words, expected at most {limit}")
        if len(value) > limit * _CHARS_PER_WORD:
            raise ValueError(f"{len(value)} characters, expected at most {limit * _CHARS_PER_WORD}")
        return value

    return check


@lru_cache(maxsize=32)
def _format(base: type[BaseModel], limits: tuple[tuple[str, int], ...], temperature: float) -> ReplyFormat:
    fields: dict[str, Any] = {name: (Annotated[Text, AfterValidator(_words_at_most(limit))], ...) for name, limit in limits}
    model = create_model(f"Limited{base.__name__}", __base__=base, **fields)
    word = f"{_WORD_CHARACTER}{{1,{MAX_WORD_CHARS}}}[,.;:!?]?"
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "pattern": f"^{word}( {word}){{0,{limit - 1}}}$"} for name, limit in limits},
        "required": [name for name, _ in limits],
        "additionalProperties": False,
    }
    words = sum(limit for _, limit in limits)
    return ReplyFormat(model, schema, words * _CHARS_PER_WORD + _TOKENS_FOR_STRUCTURE, temperature)


def profile_format(settings: HNLMSettings) -> ReplyFormat:
    """Return the form of a profile under the settings' word limits; its model is a subclass of :class:`Profile`."""
    limits = (("summarization", settings.profile_max_words), ("reasoning", settings.reasoning_max_words))
    return _format(Profile, limits, settings.llm_temperature)


def hard_negative_format(settings: HNLMSettings) -> ReplyFormat:
    """Return the form of a hard negative under the settings' word limits; its model subclasses :class:`HardNegative`."""
    limits = (("hard_negative_item", settings.negative_max_words), ("reasoning", settings.reasoning_max_words))
    return _format(HardNegative, limits, settings.negative_temperature)


def without_thinking(text: str) -> str:
    """Cut off what a model thinks aloud before its reply, in marks such as ``<think>...</think>``.

    Some chat templates open the thinking themselves, so that the closing mark stands alone; thinking that does not end leaves
    nothing.
    """
    if text.lstrip().startswith("{"):
        return text
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters have a longer lower case, which would shift the places
        lowered = text
    for opening, closing in _THINKING:
        if (place := lowered.rfind(closing)) >= 0:
            return text[place + len(closing) :]
        if lowered.lstrip().startswith(opening):
            return ""
    return text


def parse_reply(text: str | None, reply_format: ReplyFormat) -> BaseModel | None:
    """Read a reply.

    Args:
        text: what the LLM said; thinking before the reply is cut off, and so is what stands around a JSON object, where exactly
            one object in the text is of the expected form.
        reply_format: the expected form.

    Returns:
        The checked reply, or None if there is no text or it is not of that form.
    """
    if text is None:
        return None
    text = without_thinking(text).strip()
    if (reply := _validated(text, reply_format)) is not None:
        return reply
    fits = [reply for part in _objects_in(text) if (reply := _validated(part, reply_format)) is not None]
    return fits[0] if len(fits) == 1 else None


def _validated(text: str, reply_format: ReplyFormat) -> BaseModel | None:
    try:
        return reply_format.model.model_validate_json(text)
    except ValidationError:
        return None


def _objects_in(text: str) -> Iterator[str]:
    """Yield the JSON objects of a text that lie in no other one; of a text with very many braces the first ones."""
    start, decoder = 0, json.JSONDecoder()
    for _ in range(_MOST_BRACES):
        if (start := text.find("{", start)) < 0:
            return
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start += 1
        else:
            yield text[start:end]
            start = end
