"""Reading a chat completion: its text, why there is none, and what it cost. A server may leave out or misshape any part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_hnlm.llm.http import NoAnswerError

__all__ = ["Completion", "read_completion"]


@dataclass(frozen=True)
class Completion:
    """What a chat completion says.

    Attributes:
        text: the reply; None where there is none.
        is_cut: whether the limit of tokens ended it.
        thought: whether the model thought instead of replying: there is text, in a field for thinking alone.
        why_none: why there is no text, in the server's words, not yet cleaned; empty where it does not say.
        prompt_tokens: tokens read, 0 where it does not say.
        completion_tokens: tokens written, thinking included.
    """

    text: str | None
    is_cut: bool
    thought: bool
    why_none: str
    prompt_tokens: int
    completion_tokens: int


def read_completion(content: Any) -> Completion:
    """Read the body of an answer to ``/chat/completions``.

    Raises:
        NoAnswerError: it is no chat completion.
    """
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NoAnswerError("unreadable answer: no choices[0].message", again=False)
    thinking = next((text for name in ("reasoning_content", "reasoning") if (text := _text_of(message.get(name)))), "")
    text = _text_of(message.get("content"))
    if not text and _is_object(thinking):
        # Servers that split off thinking put a reply without any into the field for thinking.
        text = thinking
    reason = choice.get("finish_reason")
    refusal = message.get("refusal")
    usage = content.get("usage") if isinstance(content, dict) else None
    return Completion(
        text=text or None,
        is_cut=reason in {"length", "max_tokens"},
        thought=bool(thinking) and not text,
        why_none="" if text else str(refusal or ("" if reason in {None, "stop"} else f"finish_reason {reason}")),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
    )


def _text_of(value: Any) -> str:
    """Return a message's text, which may come in parts; empty where there is none."""
    if isinstance(value, list):
        value = "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    return value if isinstance(value, str) else ""


def _is_object(text: str) -> bool:
    stripped = text.strip()
    return stripped.startswith("{") and stripped.endswith("}")


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
