"""The prompts: instructions S_i, S_u and S_H, and the data that goes with them.

SPEC section 1: p_i = LLM(S_i, item fields); p_u = LLM(S_u, training items); hard negative = LLM(S_H, {user_id, p_u}, {item_id,
title, p_i}) (HNLMRec, arXiv 2504.04726, semantic profiles and semantic negative sampling). The wording is this project's own
and short, since every token is read once for each prompt.

Data is one JSON document. Whatever a title or review holds, it stays inside its JSON string: quotes and control characters
are escaped by :func:`json.dumps`, and characters that could spell a chat template's special token are escaped on top.

Departures: user prompts quote the items' own fields, not the items' profiles, which would double their length.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.artifacts import text_digest
from recbole_hnlm.data.atomic_text import ItemText, cut_text
from recbole_hnlm.llm.protocol import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.settings import HNLMSettings

__all__ = [
    "PROMPT_VERSION",
    "HistoryEntry",
    "item_prompt",
    "negative_prompt",
    "prompt_digest",
    "prompt_hash",
    "safe_json",
    "user_prompt",
]

#: Raised whenever wording or layout of a prompt changes.
PROMPT_VERSION = 1

_TITLE_MAX_CHARS = 200
_CATEGORIES_MAX_CHARS = 200
_CITY_MAX_CHARS = 60

_ITEM_SYSTEM = (
    "You know what people like. The message describes one item as JSON. Say which kinds of people enjoy it. Reply in JSON. "
    '"summarization": the tastes of these people, at most {profile_max_words} words. '
    '"reasoning": what in the item shows it, at most {reasoning_max_words} words.'
)
_USER_SYSTEM = (
    "You know what people like. The message lists items that one person enjoyed, as JSON. Say which kinds of items this person "
    'enjoys. Reply in JSON. "summarization": genres, styles and themes that this person enjoys, at most {profile_max_words} '
    'words. "reasoning": what in the items shows it, at most {reasoning_max_words} words.'
)
_NEGATIVE_SYSTEM = (
    "The message describes a person and an item that this person chose, as JSON. Name one other real item of the same sort "
    "that seems to fit this person at first sight, but that this person would not choose. Reply in JSON. "
    '"hard_negative_item": only the name of that other item, at most {negative_max_words} words, or "None" if there is none. '
    '"reasoning": why this person would not choose it, at most {reasoning_max_words} words.'
)

# "<" and ">" open and close the special tokens of most chat templates, and "&" the entities of markup.
_ANGLES = re.compile("[<>&\x7f-\x9f\u2028\u2029]")
# Bracketed control words of templates that use [INST] and of masked language models; other brackets are common in titles.
_BRACKETED = re.compile(
    r"\[(?=/?(?:INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG\w*|PREFIX|MIDDLE|SUFFIX|"
    r"[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS)\])",
    re.IGNORECASE,
)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def safe_json(content: Any) -> str:
    r"""Serialise data for a prompt.

    Letters of every script stay readable; ``<``, ``>``, ``&``, control characters, Unicode line separators, lone surrogates and
    the bracket of a bracketed special token become ``\uXXXX``. Reading the text as JSON gives the content back, except that a
    free-standing ``&`` reads "and", which a small model understands and an escape it does not.
    """
    text = json.dumps(_spelled_out(content), ensure_ascii=False, separators=(",", ":"))
    text = _BRACKETED.sub(_escaped, _ANGLES.sub(_escaped, text))
    return re.sub("[\ud800-\udfff]", _escaped, text)


def _spelled_out(content: Any) -> Any:
    """Replace a free-standing ampersand by "and" in every text, keys left alone."""
    if isinstance(content, str):
        return content.replace(" & ", " and ")
    if isinstance(content, dict):
        return {key: _spelled_out(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_spelled_out(value) for value in content]
    return content


@dataclass(frozen=True)
class HistoryEntry:
    """One training item of a user, with the user's review of it (``""`` when there is none)."""

    text: ItemText
    review: str = ""


def _instruction(template: str, settings: HNLMSettings) -> str:
    return template.format(
        profile_max_words=settings.profile_max_words,
        reasoning_max_words=settings.reasoning_max_words,
        negative_max_words=settings.negative_max_words,
    )


def _item_fields(text: ItemText, description_max_chars: int) -> dict[str, str]:
    """Non-empty fields of an item, cut to size."""
    fields = {
        "title": cut_text(text.title, _TITLE_MAX_CHARS),
        "categories": cut_text(text.categories, _CATEGORIES_MAX_CHARS),
        "city": cut_text(text.city, _CITY_MAX_CHARS),
        "description": cut_text(text.description, description_max_chars),
    }
    return {name: value for name, value in fields.items() if value}


def item_prompt(text: ItemText, settings: HNLMSettings) -> Prompt:
    """S_i and an item: which kinds of users enjoy it."""
    return Prompt(_instruction(_ITEM_SYSTEM, settings), safe_json(_item_fields(text, settings.description_max_chars)))


def user_prompt(history: Sequence[HistoryEntry], settings: HNLMSettings) -> Prompt:
    """S_u and training items of a user: which kinds of items the user enjoys.

    An item's description shares ``description_max_chars`` with the other items shown, so that a long history does not outgrow
    the model's positions.
    """
    share = max(1, settings.description_max_chars // max(1, len(history)))
    entries = []
    for entry in history:
        fields = _item_fields(entry.text, share)
        review = cut_text(entry.review, settings.review_max_chars)
        entries.append({**fields, "review": review} if review else fields)
    return Prompt(_instruction(_USER_SYSTEM, settings), safe_json(entries))


def negative_prompt(
    *, user_token: str, user_profile: str, item_token: str, title: str, item_profile: str, settings: HNLMSettings
) -> Prompt:
    """S_H, the user with p_u and the item with its title and p_i: an item that only looks right for the user."""
    content = {
        "person": {"user_id": user_token, "enjoys": user_profile},
        "chosen_item": {"item_id": item_token, "title": cut_text(title, _TITLE_MAX_CHARS), "enjoyed_by": item_profile},
    }
    return Prompt(_instruction(_NEGATIVE_SYSTEM, settings), safe_json(content))


def prompt_hash(settings: HNLMSettings) -> str:
    """16 hex digits over the prompt version, the instructions and the settings that shape the prompts' data."""
    instructions = [_instruction(template, settings) for template in (_ITEM_SYSTEM, _USER_SYSTEM, _NEGATIVE_SYSTEM)]
    limits = [settings.description_max_chars, settings.review_max_chars, settings.profile_history_length]
    return text_digest([str(PROMPT_VERSION), *instructions, json.dumps(limits)])[:16]


def prompt_digest(prompt: Prompt) -> str:
    """16 hex digits that identify one prompt."""
    return text_digest([prompt.system, prompt.user])[:16]
