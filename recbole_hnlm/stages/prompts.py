"""The prompts: instructions S_i, S_u and S_H, and the data that goes with them.

The method: p_i = LLM(S_i, item fields); p_u = LLM(S_u, training items); hard negative = LLM(S_H, {user_id, p_u}, {item_id,
title, p_i}) (HNLMRec, arXiv 2504.04726, semantic profiles and semantic negative sampling). The wording is this project's own
and short, because every token is read once for each prompt.

Data is one JSON document. Whatever a title or review holds, it stays inside its JSON string: quotes and control characters
are escaped by :func:`json.dumps`, and characters that could spell a chat template's special token are escaped on top.

Departures: user prompts quote the items' own fields, not the items' profiles, which would double their length; the prompt of
a hard negative leaves out the ids of user and item, which mean nothing to a language model and which a small one repeats.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.settings import keys_affecting
from recbole_hnlm.data.atomic_text import ItemText, cut_text
from recbole_hnlm.llm.protocol import Prompt
from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.config.settings import HNLMSettings

__all__ = [
    "PROMPT_VERSION",
    "HistoryEntry",
    "item_prompt",
    "negative_prompt",
    "prompt_digest",
    "prompt_hash",
    "safe_json",
    "user_prompt",
    "without_lead",
]

#: Raised whenever wording or layout of a prompt changes.
PROMPT_VERSION = 1

_TITLE_MAX_CHARS = 200
_CATEGORIES_MAX_CHARS = 200
_CITY_MAX_CHARS = 60

# A small model answers what comes last, so each profile's document ends with its question. Worked examples make the embedded
# model repeat them as profiles, but without them it names no other items; they go along as earlier turns.
_ITEM_SYSTEM = (
    "You know what people like. Answer with JSON: a summarization of at most {profile_max_words} words and a reasoning of at "
    "most {reasoning_max_words} words."
)
_LEAD = "This person enjoys"
_USER_SYSTEM = _ITEM_SYSTEM
_USER_QUESTION = f"Which genres and themes does this person enjoy? Begin with: {_LEAD}"
_ITEM_QUESTION = f"This person enjoyed the item. {_USER_QUESTION}"
_NEGATIVE_SYSTEM = (
    "Name a hard negative: another real item that looks right for the person, but that the person would not choose. Reply in "
    'JSON: "hard_negative_item" is its name, at most {negative_max_words} words, or "None"; "reasoning" says why not, at most '
    "{reasoning_max_words} words."
)


def _negative_content(enjoys: str, enjoyed_by: str, title: str) -> dict[str, Any]:
    """The data of S_H; the title comes last, where a small model looks first."""
    return {"person": {"enjoys": enjoys}, "chosen_item": {"enjoyed_by": enjoyed_by, "title": title}}


# (p_u, p_i, title, hard negative, reasoning) of worked examples, made up for this purpose.
_NEGATIVE_EXAMPLES = (
    ("science fiction and horror", "science fiction", "Alien", "Spaceballs", "in space, but silly"),
    ("calm jazz and blues", "calm jazz", "Kind of Blue", "A Love Supreme", "jazz, but loud and wild"),
    ("comedy and romance", "comedy romance", "Notting Hill", "Fatal Attraction", "romance, but dark and violent"),
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
    content = {"item": _item_fields(text, settings.description_max_chars), "question": _ITEM_QUESTION}
    return Prompt(_instruction(_ITEM_SYSTEM, settings), safe_json(content))


def user_prompt(history: Sequence[HistoryEntry], settings: HNLMSettings) -> Prompt:
    """S_u and training items of a user: which kinds of items the user enjoys.

    An item of which only title and categories are known is written "title (categories)", which takes fewer tokens. An
    item's description shares ``description_max_chars`` with the other items shown, so that a long history does not outgrow
    the model's positions.
    """
    share = max(1, settings.description_max_chars // max(1, len(history)))
    entries = []
    for entry in history:
        fields = _item_fields(entry.text, share)
        review = cut_text(entry.review, settings.review_max_chars)
        entries.append(_compact({**fields, "review": review} if review else fields))
    return Prompt(_instruction(_USER_SYSTEM, settings), safe_json({"items": entries, "question": _USER_QUESTION}))


def _compact(fields: dict[str, str]) -> dict[str, str] | str:
    if fields.keys() == {"title"}:
        return fields["title"]
    return f"{fields['title']} ({fields['categories']})" if fields.keys() == {"title", "categories"} else fields


def negative_prompt(*, user_profile: str, title: str, item_profile: str, settings: HNLMSettings) -> Prompt:
    """S_H, the user's p_u and the item's title and p_i: an item that only looks right for the user."""
    content = _negative_content(without_lead(user_profile), without_lead(item_profile), cut_text(title, _TITLE_MAX_CHARS))
    return Prompt(_instruction(_NEGATIVE_SYSTEM, settings), safe_json(content), _worked_examples())


def without_lead(profile: str) -> str:
    """Drop the words that every profile is asked to begin with; the field's name says the same."""
    return profile.removeprefix(_LEAD).lstrip()


@lru_cache(maxsize=1)
def _worked_examples() -> tuple[tuple[str, str], ...]:
    """The examples of S_H as turns: data, then the reply in the form in which replies are decoded."""
    return tuple(
        (
            safe_json(_negative_content(enjoys, enjoyed_by, title)),
            json.dumps({"hard_negative_item": negative, "reasoning": reasoning}),
        )
        for enjoys, enjoyed_by, title, negative, reasoning in _NEGATIVE_EXAMPLES
    )


def prompt_hash(settings: HNLMSettings) -> str:
    """16 hex digits over the prompt version, the instructions and the settings that shape the prompts' data."""
    instructions = [_instruction(template, settings) for template in (_ITEM_SYSTEM, _USER_SYSTEM, _NEGATIVE_SYSTEM)]
    questions = [_ITEM_QUESTION, _USER_QUESTION, *(text for example in _worked_examples() for text in example)]
    limits = [getattr(settings, name) for name in keys_affecting(Affects.QUOTES)]
    return text_digest([str(PROMPT_VERSION), *instructions, *questions, json.dumps(limits)])[:16]


def prompt_digest(prompt: Prompt) -> str:
    """16 hex digits that identify one prompt."""
    return text_digest([prompt.system, prompt.user, *prompt.example_texts])[:16]
