"""Batched decoding under a grammar, in the four parts that are slow when left to ``generate``.

``transformers.generate`` works, but at 64 rows on two cores it spends most of its time outside the model: it concatenates the
whole key-value cache for every token, copies all logits to float32, keeps computing rows that are finished, and computes the
shared instruction again in every row. This loop has the same meaning (greedy decoding, or sampling from the softmax at a
temperature) without these four costs.

Symbols: B rows, P tokens of the shared prefix, S tokens of the longest suffix, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.llm.kv_cache import BatchCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recbole_hnlm.llm.grammar import GrammarBatch
    from recbole_hnlm.llm.kv_cache import Prefix

__all__ = ["Sampler", "compute_prefix", "decode_rows", "rows_to_keep"]

_PREFILL_TOKENS = 1024  # suffix tokens that run through the model together on a CPU
_ROOM = 64  # new tokens for which the cache reserves room at first


class Sampler:
    """Chooses tokens from logits.

    Each row draws from its own generator, so what a prompt gets does not depend on its neighbours in the batch (up to the
    rounding of the model's arithmetic).

    Args:
        temperature: 0 takes the most likely token.
        seeds: one seed per row.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds] if temperature > 0 else []

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Return one token id per row, int64 ``[B]``, from logits ``[B, V]``."""
        if self._temperature <= 0:
            return logits.max(dim=-1).indices  # argmax takes far longer for 16-bit types on a CPU
        cumulative = torch.softmax(logits.float() / self._temperature, dim=-1).cumsum(dim=-1)  # [B, V]
        draws = torch.cat([torch.rand(1, 1, generator=generator) for generator in self._generators])  # [B, 1]
        # Scaled by the total, which rounding keeps from being exactly 1; below it, so that a token of weight > 0 is met.
        target = draws.to(cumulative.device) * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[1] - 1).squeeze(1)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Drop all rows but the given ones."""
        if self._generators:
            self._generators = [self._generators[row] for row in rows]


@dataclass
class _Rows:
    """The rows that are still being decoded; ``origin`` maps them to the rows of the batch."""

    origin: list[int]
    cache: BatchCache
    attention: torch.Tensor  # [B, positions so far or room], 1 where a token stands
    positions: torch.Tensor  # [B, 1], of the token that comes next

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Drop all rows but the given ones."""
        index = torch.tensor(list(rows), device=self.attention.device)
        self.origin = [self.origin[row] for row in rows]
        self.cache.keep_rows(rows)
        self.attention = self.attention.index_select(0, index)
        self.positions = self.positions.index_select(0, index)


def compute_prefix(model: Any, tokens: Sequence[int]) -> Prefix:
    """Run a token prefix through the model once; its keys and values serve every prompt that begins so."""
    ids = torch.tensor([list(tokens)], device=model.device)
    cache = BatchCache.empty(model.config.get_text_config().num_hidden_layers, room=len(tokens))
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache.as_prefix()


def _pad_left(suffixes: Sequence[Sequence[int]], shared: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids ``[B, S]`` and the attention mask ``[B, P + S]``; padding stands between prefix and suffix."""
    longest = max(len(suffix) for suffix in suffixes)
    ids = torch.full((len(suffixes), longest), pad)
    attention = torch.zeros(len(suffixes), shared + longest, dtype=torch.int64)
    attention[:, :shared] = 1
    for row, suffix in enumerate(suffixes):
        ids[row, longest - len(suffix) :] = torch.tensor(list(suffix))
        attention[row, shared + longest - len(suffix) :] = 1
    return ids, attention


def _prefill(model: Any, suffixes: Sequence[Sequence[int]], prefix: Prefix, pad: int) -> tuple[_Rows, torch.Tensor]:
    """Run all suffixes behind the prefix; returns the rows and the last logits ``[B, V]``.

    A few rows at a time: the activations of 64 suffixes at once leave the processor's cache, which takes 1.7 times as long.
    """
    shared = prefix[0][0].shape[2]
    ids, attention = (part.to(model.device) for part in _pad_left(suffixes, shared, pad))
    count, longest = ids.shape
    positions = (attention.cumsum(dim=1) - 1).clamp_(min=0)  # [B, P + S]
    cache = BatchCache.from_prefix(prefix, count, shared + longest + _ROOM)
    last, start = [], 0
    while start < count:
        chunk = count if model.device.type != "cpu" else max(1, _PREFILL_TOKENS // len(suffixes[start]))
        rows = slice(start, min(start + chunk, count))
        # Padding that all rows of the chunk have costs nothing: their part of the cache begins behind it.
        new = max(map(len, suffixes[rows]))
        part = cache.slice_rows(rows.start, rows.stop)
        part.advance(longest - new)
        output = model(
            input_ids=ids[rows, longest - new :],
            attention_mask=_widened(attention[rows], part.mask_width(new)),
            position_ids=positions[rows, shared + longest - new :],
            past_key_values=part,
            use_cache=True,
            logits_to_keep=1,
        )
        last.append(output.logits[:, -1])
        start = rows.stop
    cache.advance(longest)
    return _Rows(list(range(count)), cache, attention, positions[:, -1:] + 1), torch.cat(last)


def _widened(attention: torch.Tensor, width: int) -> torch.Tensor:
    """Return an attention mask ``[B, width]`` with zeros, no tokens, in what is new."""
    return torch.nn.functional.pad(attention, (0, width - attention.shape[1]))


def _step(model: Any, rows: _Rows, tokens: torch.Tensor) -> torch.Tensor:
    """Run one token ``[B]`` per row; returns the logits ``[B, V]`` of the next."""
    rows.attention = _widened(rows.attention, rows.cache.mask_width(1))
    rows.attention[:, rows.cache.get_seq_length()] = 1
    output = model(
        input_ids=tokens[:, None],
        attention_mask=rows.attention,
        position_ids=rows.positions,
        past_key_values=rows.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    rows.positions = rows.positions + 1
    return output.logits[:, -1]


def decode_rows(  # noqa: PLR0917 -- the parts of one batch
    model: Any,
    suffixes: Sequence[Sequence[int]],
    prefix: Prefix,
    grammar: GrammarBatch,
    sampler: Sampler,
    max_new_tokens: int,
    pad: int,
    given_up: Callable[[], bool] = lambda: False,
) -> list[list[int] | None]:
    """Decode a batch until every row's grammar is complete.

    Args:
        model: a causal language model of transformers.
        suffixes: token ids of each prompt behind the shared prefix; none empty.
        prefix: keys and values of the shared prefix; at least one token.
        grammar: the grammar's state of each row.
        sampler: chooses tokens.
        max_new_tokens: tokens of a reply at most.
        pad: token id for padding; it is masked, so any id does.
        given_up: asked before every step; once true, rows that are not complete stay so.

    Returns:
        The new token ids of each row, or None for a row that is not complete after ``max_new_tokens``.
    """
    replies: list[list[int]] = [[] for _ in suffixes]
    complete: list[list[int] | None] = [None] * len(suffixes)
    with torch.inference_mode():
        rows, logits = _prefill(model, suffixes, prefix, pad)
        for _ in range(max_new_tokens):
            if given_up():
                break
            grammar.restrict(logits)
            tokens = sampler.choose(logits).tolist()
            finished = grammar.accept(tokens)
            for origin, token, ends in zip(rows.origin, tokens, finished, strict=True):
                replies[origin].append(token)
                if ends:
                    complete[origin] = replies[origin]
            if any(finished):
                kept = rows_to_keep(finished)
                if not kept:
                    break
                for part in (grammar, sampler, rows):
                    part.keep_rows(kept)
                tokens = [tokens[row] for row in kept]
            logits = _step(model, rows, torch.tensor(tokens, device=logits.device))
    return complete


def rows_to_keep(finished: Sequence[bool]) -> list[int]:
    """Return the unfinished rows so that few change their place: the last ones fill the gaps that finished rows leave.

    >>> rows_to_keep([False, True, False, False])
    [0, 3, 2]
    """
    unfinished = [row for row, ends in enumerate(finished) if not ends]
    count = len(unfinished)
    movers = [row for row in unfinished if row >= count]
    return [movers.pop() if finished[place] else place for place in range(count)]
