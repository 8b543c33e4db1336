"""A key-value cache for batched decoding: shared prefixes, writing in place, dropping finished rows.

transformers' ``DynamicCache`` concatenates all keys and values of all layers for every token, which for 64 rows of a small
model on a CPU costs more than the model itself. Here a layer owns room for more positions than it uses and hands out views.

A decoding step (one new token a row) sees the whole room, unused positions included, which the mask leaves out: the batched
product of PyTorch on a CPU copies operands that are not contiguous, here the keys and values of all rows for every token.

Symbols: B rows, G key-value heads, T positions in use, R positions there is room for, D size of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BatchCache", "Prefix"]

Prefix = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values ``[1, G, T, D]`` of each layer for a token prefix that many prompts share."""

_GROWTH = 64  # positions of room that are added at once
_STEP = 1  # new tokens of a row in a decoding step


class _RoomyLayer(DynamicLayer):
    """One layer's keys and values as views ``[B, G, T, D]`` of buffers ``[B, G, R, D]``."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._used = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new positions behind the ones in use and return views of everything in use, in a decoding step of the room."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        end = self._used + new
        buffers = self._with_room(key_states, end)
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._used : end] = states
        self._used = end
        self._look()
        return buffers if new == _STEP else (self.keys, self.values)

    def get_seq_length(self) -> int:
        """Return the number of positions in use."""
        return self._used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many positions :meth:`update` will return for so many new tokens, and that the first one is 0."""
        end = self._used + query_length
        return (self._room_for(end) if query_length == _STEP else end), 0

    def _look(self) -> None:
        """Make ``keys`` and ``values`` views of the positions in use."""
        if self._buffers is None:
            raise ValueError("a cache without buffers has no positions")
        self.keys, self.values = (buffer[:, :, : self._used] for buffer in self._buffers)

    def _room_for(self, end: int) -> int:
        room = self._room if self._buffers is None else self._buffers[0].shape[2]
        return room if end <= room else end + _GROWTH

    def _with_room(self, like: torch.Tensor, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._buffers is not None and end <= self._buffers[0].shape[2]:
            return self._buffers
        rows, heads, _, size = like.shape
        room = self._room_for(end)
        # Zeros, since masked positions are multiplied too and what memory happens to hold may not be a number.
        keys, values = like.new_zeros(rows, heads, room, size), like.new_zeros(rows, heads, room, size)
        if self._buffers is not None:
            for new, old in zip((keys, values), self._buffers, strict=True):
                new[:, :, : self._used] = old[:, :, : self._used]
        self._buffers = (keys, values)
        return self._buffers

    def slice_rows(self, start: int, stop: int) -> _RoomyLayer:
        """Return a layer over the same buffers that sees and writes only rows ``start`` to ``stop``."""
        part = _RoomyLayer(self._room)
        if self._buffers is None:
            raise ValueError("a cache without buffers has no rows")
        part._buffers = (self._buffers[0][start:stop], self._buffers[1][start:stop])
        part._used = self._used
        part.is_initialized = True
        part.dtype, part.device = self.dtype, self.device
        part._look()
        return part

    def reserve(self, keys: torch.Tensor, values: torch.Tensor, rows: int) -> None:
        """Make buffers for ``rows`` rows, beginning with the keys and values ``[1, G, T, D]`` (T may be 0) in every row."""
        self.lazy_initialization(keys, values)
        self.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def advance(self, positions: int) -> None:
        """Count positions as used that slices of this layer have written, or that stay zero and masked."""
        self._used += positions
        self._look()

    def move_rows(self, targets: torch.Tensor, sources: torch.Tensor, rows: int) -> None:
        """Copy rows ``sources`` over rows ``targets``, then keep the first ``rows`` rows."""
        if self._buffers is None:
            return
        for buffer in self._buffers:
            used = buffer[:, :, : self._used]
            used[targets] = used[sources]
        keys, values = (buffer[:rows] for buffer in self._buffers)
        self._buffers = (keys, values)
        self._look()


class BatchCache(Cache):
    """Keys and values of a batch that is being decoded."""

    def __init__(self, layers: list[_RoomyLayer]) -> None:
        super().__init__(layers=layers)

    @classmethod
    def empty(cls, layers: int, room: int) -> BatchCache:
        """Return a cache whose number of rows the first update decides, with ``room`` positions at first."""
        return cls([_RoomyLayer(room) for _ in range(layers)])

    @classmethod
    def from_prefix(cls, prefix: Prefix, rows: int, room: int) -> BatchCache:
        """Return a cache of ``rows`` rows that all begin with a prefix, with room for ``room`` positions at first."""
        cache = cls.empty(len(prefix), room)
        for layer, (keys, values) in zip(cache.layers, prefix, strict=True):
            layer.reserve(keys, values, rows)
        return cache

    def slice_rows(self, start: int, stop: int) -> BatchCache:
        """Return a cache that writes into rows ``start`` to ``stop`` of this one; :meth:`advance` makes that seen here.

        What is written must fit into the room there is.
        """
        return BatchCache([layer.slice_rows(start, stop) for layer in self.layers])

    def mask_width(self, new: int) -> int:
        """Return how many positions the mask of a call with ``new`` tokens a row covers."""
        return int(self.layers[0].get_mask_sizes(new)[0])

    def advance(self, positions: int) -> None:
        """Count positions as used that slices have written in every row."""
        for layer in self.layers:
            layer.advance(positions)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order. Only rows whose place changes are copied.

        Args:
            rows: kept rows; a row that changes its place must come from behind the kept ones, so that no copy overwrites
                another's source.
        """
        moves = [(target, source) for target, source in enumerate(rows) if target != source]
        device = self.layers[0].keys.device
        targets = torch.tensor([target for target, _ in moves], dtype=torch.int64, device=device)
        sources = torch.tensor([source for _, source in moves], dtype=torch.int64, device=device)
        for layer in self.layers:
            layer.move_rows(targets, sources, len(rows))

    def as_prefix(self) -> Prefix:
        """Return the keys and values of a cache of one row, to start other caches from."""
        return tuple((layer.keys.contiguous(), layer.values.contiguous()) for layer in self.layers)
