"""How many tokens prompts have: counted with the LLM's own tokenizer where it is on this machine, estimated elsewhere."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.llm.model_loading import local_tokenizer
from recbole_hnlm.llm.tokenization import PromptEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.llm.replies import ReplyFormat

__all__ = ["CHARS_PER_TOKEN", "SAMPLE", "TokenCounter", "reply_opening", "sampled"]

#: Rule of thumb for English text where no tokenizer is at hand.
CHARS_PER_TOKEN = 4
#: Prompts of one kind that are counted; of more, a random sample of this size stands for all.
SAMPLE = 20_000


def reply_opening(form: ReplyFormat) -> str:
    """Text with which every reply under a grammar begins; the local backend appends it to the prompt."""
    return f'{{"{next(iter(form.schema["properties"]))}": "'


def sampled(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """All prompts, or :data:`SAMPLE` of them drawn with a fixed seed."""
    return prompts if len(prompts) <= SAMPLE else random.Random(0).sample(prompts, SAMPLE)  # noqa: S311 -- not a secret


class TokenCounter:
    """Counts the tokens of prompts; nothing is downloaded, and no weights are loaded.

    Args:
        settings: ``llm_backend`` and ``llm_model`` are read.

    Attributes:
        how: how the tokens are counted, for the report.
        is_exact: whether a tokenizer counts, rather than a rule of thumb.
    """

    def __init__(self, settings: HNLMSettings) -> None:
        # A server's tokenizer is not known here, whatever its model is called.
        tokenizer = local_tokenizer(settings) if settings.llm_backend == "transformers" else None
        self._tokenizer: Any = tokenizer
        self._encoder = PromptEncoder(tokenizer) if tokenizer is not None else None
        self._known: dict[tuple[Prompt, str], int] = {}
        self.is_exact = tokenizer is not None
        if self.is_exact:
            self.how = f"counted with the tokenizer of {settings.llm_model}"
        elif settings.llm_backend == "openai":
            self.how = f"an estimate: characters / {CHARS_PER_TOKEN}, since the tokenizer is the server's"
        else:
            self.how = f"an estimate: characters / {CHARS_PER_TOKEN}, since the tokenizer of {settings.llm_model} is not local"

    def count(self, prompt: Prompt, opening: str = "") -> int:
        """Tokens of one prompt with its instruction, examples and chat template."""
        key = (prompt, opening)
        if key not in self._known:
            if self._encoder is not None:
                self._known[key] = len(self._encoder.prefix(prompt)) + len(self._encoder.suffix(prompt, opening))
            else:
                chars = sum(map(len, (prompt.system, prompt.user, *prompt.example_texts)))
                self._known[key] = -(-chars // CHARS_PER_TOKEN)
        return self._known[key]

    def count_text(self, text: str) -> int:
        """Tokens of a reply."""
        return len(self._encoder.encode_text(text)) if self._encoder is not None else -(-len(text) // CHARS_PER_TOKEN)

    def lengths(self, prompts: Sequence[Prompt], opening: str = "") -> NDArray[np.int64]:
        """Tokens of each prompt of :func:`sampled`, int64 ``[min(N, SAMPLE)]``."""
        return np.array([self.count(prompt, opening) for prompt in sampled(prompts)], dtype=np.int64)

    def total(self, prompts: Sequence[Prompt], opening: str = "") -> int:
        """Tokens of all prompts; above :data:`SAMPLE` prompts the sample's mean times their number."""
        lengths = self.lengths(prompts, opening)
        return round(float(lengths.mean()) * len(prompts)) if len(lengths) else 0
