"""The attention function and the cache against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from recbole_hnlm.llm.attention import grouped_attention
from recbole_hnlm.llm.kv_cache import BatchCache


@pytest.mark.parametrize(("queries", "masked"), [(1, True), (1, False), (4, True), (4, False)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_it_equals_pytorchs_attention(queries, masked, groups):
    torch.manual_seed(0)
    rows, heads, keys, size = 3, 6, 9, 8
    query = torch.randn(rows, heads, queries, size)
    key, value = torch.randn(rows, groups, keys, size), torch.randn(rows, groups, keys, size)
    causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    padding = torch.arange(keys) >= torch.tensor([0, 2, 4])[:, None]
    mask = (causal & padding[:, None, :])[:, None] if masked else None
    ours, _ = grouped_attention(torch.nn.Identity(), query, key, value, mask, scaling=0.3)
    repeats = heads // groups
    expected = functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(repeats, 1),
        value.repeat_interleave(repeats, 1),
        attn_mask=causal[None, None] if mask is None else mask,
        scale=0.3,
    )
    torch.testing.assert_close(ours, expected.transpose(1, 2))


def test_the_cache_holds_what_concatenation_would_through_growth_slices_and_moves():
    torch.manual_seed(0)
    rows, groups, size = 4, 2, 3
    prefix = tuple((torch.randn(1, groups, 2, size), torch.randn(1, groups, 2, size)) for _ in range(2))
    cache = BatchCache.from_prefix(prefix, rows, room=8)
    suffix = torch.randn(2, rows, groups, 5, size)
    for start, stop in ((0, 3), (3, 4)):
        part = cache.slice_rows(start, stop)
        for layer in range(2):
            part.update(suffix[0, start:stop], suffix[1, start:stop], layer)
    cache.advance(5)
    expected = [torch.cat([prefix[0][side].expand(rows, -1, -1, -1), suffix[side]], dim=2) for side in (0, 1)]
    kept = [0, 3, 2]
    cache.keep_rows(kept)
    expected = [part[kept] for part in expected]
    for _ in range(80):
        step = torch.randn(2, 3, groups, 1, size)
        width = cache.mask_width(1)
        seen = [cache.update(step[0], step[1], layer) for layer in range(2)]
        expected = [torch.cat([part, new], dim=2) for part, new in zip(expected, step, strict=True)]
    for side in (0, 1):
        # A step sees the whole room, in one piece so that products need no copy; what is unused is a number.
        assert seen[0][side].shape[2] == width > 2 + 5 + 80
        torch.testing.assert_close(seen[0][side][:, :, : 2 + 5 + 80], expected[side])
        assert not seen[0][side][:, :, 2 + 5 + 80 :].any()
    assert all(part.is_contiguous() for part in seen[0])
    assert cache.get_seq_length() == 2 + 5 + 80
