"""From a prompt to token ids, so that nothing in the prompt's text can become a special token.

A chat template is rendered with two placeholders in place of the instruction and the data. The template's own text is tokenised
with special tokens, the instruction and the data are tokenised apart from it and without: a title that holds ``<|im_end|>`` or
``[INST]`` becomes ordinary tokens. The stages escape such text in their JSON too; this is the second wall.

The tokens of the instruction and of the template around it are the same for all prompts of a stage: they are the prefix whose
keys and values are computed once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbole_hnlm.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recbole_hnlm.llm.protocol import Prompt

__all__ = ["PromptEncoder"]

_SYSTEM, _USER = "HNLM-INSTRUCTION-PLACE", "HNLM-DATA-PLACE"


@dataclass(frozen=True)
class _Template:
    """A rendered prompt, cut at its placeholders."""

    before_system: str
    between: str
    after_user: str


class PromptEncoder:
    """Turns prompts into token ids for one tokenizer.

    Args:
        tokenizer: its chat template is used when it has one; instruction, data and reply are separated by blank lines
            otherwise.

    Raises:
        BackendError: the chat template leaves out the user's message.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._template = self._render()
        special = {str(token) for token in tokenizer.get_added_vocab() if str(token).strip()}
        special.update(token for token in tokenizer.all_special_tokens if token.strip())
        longest_first = sorted(special, key=lambda token: (-len(token), token))
        self._special = re.compile("|".join(map(re.escape, longest_first))) if special else None
        self._prefixes: dict[str, list[int]] = {}

    def _render(self) -> _Template:
        if not self._tokenizer.chat_template:
            ids = self._tokenizer("").input_ids
            bos = self._tokenizer.bos_token_id
            start = self._tokenizer.bos_token if bos is not None and ids[:1] == [bos] else ""
            return _Template(start, "\n\n", "\n\n")
        with_system = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
        # Templates without a system role either refuse it or drop it silently.
        merged = [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]
        for messages in (with_system, merged):
            try:
                text = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            except Exception as error:
                reason = str(error)
                continue
            parts = re.match(f"(.*?){_SYSTEM}(.*?){_USER}(.*)\\Z", text, re.DOTALL)
            if parts:
                return _Template(*parts.groups())
            reason = "it leaves out the message"
        raise BackendError(
            f"the chat template of {self._tokenizer.name_or_path} cannot take an instruction and a user message ({reason}); "
            "choose an instruction-tuned llm_model"
        )

    def _encode_template(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids) if text else []

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of text in which nothing is special.

        A special token inside the text is cut behind its first character before tokenising, so that no tokenizer, whatever
        it makes of ``split_special_tokens``, can recognise it.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no text for a tokenizer
        pieces, start = [], 0
        for match in self._special.finditer(text) if self._special else ():
            cut = match.start() + 1
            pieces.append(text[start:cut])
            start = cut
        pieces.append(text[start:])
        ids: list[int] = []
        for piece in pieces:
            if piece:
                ids += self._tokenizer(piece, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def prefix(self, system: str) -> list[int]:
        """Return the ids that all prompts with this instruction begin with."""
        if system not in self._prefixes:
            head = self._encode_template(self._template.before_system)
            self._prefixes[system] = head + self.encode_text(system) + self._encode_template(self._template.between)
        return self._prefixes[system]

    def suffix(self, prompt: Prompt, opening: str) -> list[int]:
        """Return the ids that follow the prefix: the data, the template's end, and the opening of the reply."""
        tail = self._encode_template(self._template.after_user)
        return self.encode_text(prompt.user) + tail + self.encode_text(opening)
