"""From a prompt to token ids, so that nothing in the prompt's text can become a special token.

A chat template is rendered with placeholders in place of the instruction, the examples and the data. The template's own text is
tokenised with special tokens, the placed texts separately and without: a title that holds ``<|im_end|>`` or
``[INST]`` becomes ordinary tokens. The stages escape such text in their JSON too; this is the second line of defence.

The tokens of the instruction, of the examples and of the template around them are the same for all prompts of a stage: they are
the prefix whose keys and values are computed once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from recbole_hnlm.utils.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recbole_hnlm.llm.protocol import Prompt

__all__ = ["PromptEncoder"]

_PLACE = "HNLM-PLACE-{}-"
"""Placeholder of the n-th message's content; the dash at the end keeps 1 from being found in 10."""


class PromptEncoder:
    """Turns prompts into token ids for one tokenizer.

    Args:
        tokenizer: its chat template is used when it has one; instruction, examples, data and reply are separated by blank
            lines otherwise.
        chat: whether to use the chat template.

    Raises:
        BackendError: the chat template leaves out the user's message.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, chat: bool = True) -> None:
        self._tokenizer = tokenizer
        self._chat = chat and bool(tokenizer.chat_template)
        self._templates = {0: self._render(0)}
        special = {str(token) for token in tokenizer.get_added_vocab() if str(token).strip()}
        special.update(token for token in tokenizer.all_special_tokens if token.strip())
        longest_first = sorted(special, key=lambda token: (-len(token), token))
        self._special = re.compile("|".join(map(re.escape, longest_first))) if special else None
        self._prefixes: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}

    def _render(self, n_examples: int) -> list[str]:
        """Return the template's own text before, between and behind instruction, examples and data."""
        count = 2 + 2 * n_examples
        if not self._chat:
            ids = self._tokenizer("").input_ids
            bos = self._tokenizer.bos_token_id
            start = self._tokenizer.bos_token if bos is not None and ids[:1] == [bos] else ""
            return [start, *["\n\n"] * count]
        places = [_PLACE.format(number) for number in range(count)]
        turns = [{"role": ("user", "assistant")[turn % 2], "content": place} for turn, place in enumerate(places[1:])]
        with_system = [{"role": "system", "content": places[0]}, *turns]
        # Templates without a system role either refuse it or drop it silently.
        merged = [{"role": "user", "content": f"{places[0]}\n\n{places[1]}"}, *turns[1:]]
        for messages in (with_system, merged):
            try:
                text = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            except Exception as error:
                reason = str(error)
                continue
            parts = re.match("(.*?)" + "(.*?)".join(places) + "(.*)\\Z", text, re.DOTALL)
            if parts:
                return list(parts.groups())
            reason = "it leaves out a message"
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
        text = text.encode("utf-8", "replace").decode("utf-8")  # a tokenizer does not accept lone surrogates
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

    def template_ids(self) -> tuple[list[int], list[int], list[int]]:
        """Return the template's own ids before the instruction, between it and the data, and behind the data."""
        before, between, tail = (self._encode_template(text) for text in self._templates[0])
        return before, between, tail

    def _template_of(self, prompt: Prompt) -> list[str]:
        n_examples = len(prompt.examples)
        if n_examples not in self._templates:
            self._templates[n_examples] = self._render(n_examples)
        return self._templates[n_examples]

    def prefix(self, prompt: Prompt) -> list[int]:
        """Return the ids that all prompts with this instruction and these examples begin with."""
        if prompt.head not in self._prefixes:
            before, *between, _ = self._template_of(prompt)
            contents = [prompt.system, *prompt.example_texts]
            ids = self._encode_template(before)
            for content, text in zip(contents, between, strict=True):
                ids += self.encode_text(content) + self._encode_template(text)
            self._prefixes[prompt.head] = ids
        return self._prefixes[prompt.head]

    def suffix(self, prompt: Prompt, opening: str) -> list[int]:
        """Return the ids that follow the prefix: the data, the template's end, and the opening of the reply."""
        tail = self._encode_template(self._template_of(prompt)[-1])
        return self.encode_text(prompt.user) + tail + self.encode_text(opening)
