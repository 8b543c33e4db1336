"""Attention for decoding on a CPU with grouped key-value heads.

PyTorch's fused CPU kernel works on blocks of queries. A decoding step has one query per row, so most of each block is padding,
and with a mask it takes repeated key-value heads. Two matrix products per group of heads, against keys and values that lie in
one piece (see :mod:`recbole_hnlm.llm.kv_cache`), take less (whole replies: ``benchmarks/bench_llm.py``). The arithmetic is
that of transformers' eager attention, products in the model's type and softmax in float32 rounded to it, except that the
softmax rounds on its way rather than in a second pass over the memory.

Symbols: B rows, G key-value heads, R query heads per key-value head, Q queries of a row, T keys of a row, D size of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GROUPED_ATTENTION", "grouped_attention", "register"]

GROUPED_ATTENTION = "recbole_hnlm_grouped"
"""Name under which :func:`register` makes the function known to transformers."""


def grouped_attention(  # noqa: PLR0917 -- the form that transformers asks for
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend, in the form that transformers asks of an attention function.

    Args:
        module: the attention module; not read.
        query: ``[B, G * R, Q, D]``.
        key: ``[B, G, T, D]``.
        value: ``[B, G, T, D]``.
        attention_mask: bool ``[B or 1, 1, Q, T]``, True where a query may look; None when all of Q = 1 queries may look
            everywhere, or, for Q > 1, causal with the last query at the last key.
        scaling: factor of the scores; None is ``D ** -0.5``.

    Returns:
        The output ``[B, Q, G * R, D]``, and None in the place of weights.
    """
    rows, heads, queries, size = query.shape
    groups, keys = key.shape[1], key.shape[2]
    repeats = heads // groups
    scaled = query * (size**-0.5 if scaling is None else scaling)
    scores = scaled.reshape(rows, groups, repeats * queries, size) @ key.transpose(-1, -2)  # [B, G, R * Q, T]
    if attention_mask is None and queries > 1:
        attention_mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    if attention_mask is not None:
        by_head = scores.view(rows, groups, repeats, queries, keys)
        by_head.masked_fill_(~attention_mask[:, :, None], torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    output = (weights @ value).view(rows, heads, queries, size)
    return output.transpose(1, 2), None


def register() -> None:
    """Make :data:`GROUPED_ATTENTION` a value of ``attn_implementation``; calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415 -- takes seconds
    from transformers.masking_utils import sdpa_mask  # noqa: PLC0415

    AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
    AttentionMaskInterface.register(GROUPED_ATTENTION, sdpa_mask)
