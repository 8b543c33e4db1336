"""Decoding under a JSON schema with xgrammar: which tokens may come next, for a whole batch at once.

xgrammar's own logits processor for transformers fills masks row by row, and ``generate`` hands it float32 copies of all logits.
Here all rows are filled by one multi-threaded call, and the logits are masked in place in their own dtype on their own device.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xgrammar as xgr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

__all__ = ["GrammarBatch", "JsonGrammars"]


class GrammarBatch:
    """The state of the grammar in each row of a batch.

    Args:
        compiled: the schema, compiled for the tokenizer.
        opening: text with which every reply begins; rows start behind it.
        rows: number of rows.
        vocabulary: number of logits of the model.
        threads: threads that fill masks.
    """

    def __init__(self, compiled: Any, opening: str, rows: int, vocabulary: int, threads: int) -> None:
        first = xgr.GrammarMatcher(compiled, terminate_without_stop_token=True)
        if opening and not first.accept_string(opening):
            raise ValueError(f"the schema does not allow the opening {opening!r}")
        self._matchers = [first, *(first.fork() for _ in range(rows - 1))]
        self._batch = xgr.BatchGrammarMatcher(threads)
        self._mask = xgr.allocate_token_bitmask(rows, vocabulary)

    def restrict(self, logits: torch.Tensor) -> None:
        """Set the logits ``[rows, vocabulary]`` of all tokens that may not come next to minus infinity, in place."""
        mask = self._mask[: len(self._matchers)]
        self._batch.batch_fill_next_token_bitmask(self._matchers, mask)
        if logits.device.type == "cpu":
            # xgrammar's own takes more than twice as long on a CPU.
            allowed = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little", axis=1, count=logits.shape[1])
            with torch.inference_mode():  # which logits from inside that mode demand of their changes
                logits.masked_fill_(torch.from_numpy(allowed).view(torch.bool).logical_not_(), float("-inf"))
        else:
            xgr.apply_token_bitmask_inplace(logits, mask.to(logits.device, non_blocking=True))

    def accept(self, tokens: Sequence[int]) -> list[bool]:
        """Take in one token per row.

        Returns:
            Which rows are complete now.

        Raises:
            RuntimeError: a token that :meth:`restrict` had ruled out.
        """
        accepted = self._batch.batch_accept_token(self._matchers, list(tokens))
        if not all(accepted):
            raise RuntimeError(f"the grammar refuses token {tokens[accepted.index(False)]}")
        return [matcher.is_terminated() for matcher in self._matchers]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Drop all rows but the given ones."""
        self._matchers = [self._matchers[row] for row in rows]


class JsonGrammars:
    """Compiles JSON schemas for one tokenizer, each once.

    Args:
        tokenizer: the model's tokenizer.
        vocabulary: number of logits of the model, which may exceed the tokenizer's vocabulary.
        threads: threads for compiling and filling masks.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, threads: int) -> None:
        self._info = xgr.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
        self._compiler = xgr.GrammarCompiler(self._info, max_threads=threads)
        self._compiled: dict[str, tuple[Any, str]] = {}
        self._vocabulary = vocabulary
        self._threads = threads
        self.token_bytes: list[bytes] = self._info.decoded_vocab
        """The bytes that each token stands for."""

    def _compile(self, schema: dict[str, Any]) -> tuple[Any, str]:
        text = json.dumps(schema)
        if text not in self._compiled:
            compiled = self._compiler.compile_json_schema(text, any_whitespace=False, separators=(", ", ": "))
            self._compiled[text] = (compiled, xgr.GrammarMatcher(compiled).find_jump_forward_string())
        return self._compiled[text]

    def opening(self, schema: dict[str, Any]) -> str:
        """Return the text with which every reply under a schema begins, such as ``{"summarization": "``."""
        return self._compile(schema)[1]

    def batch(self, schema: dict[str, Any], rows: int) -> GrammarBatch:
        """Return the state of a batch whose replies stand right behind the opening."""
        compiled, opening = self._compile(schema)
        return GrammarBatch(compiled, opening, rows, self._vocabulary, self._threads)
