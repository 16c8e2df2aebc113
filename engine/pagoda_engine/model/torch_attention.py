"""Paged attention in plain torch: exact on every device, the oracle of all kernels, and quick enough on a CPU.

Sequences with one query (decoding) are grouped by length and padded; each longer one (a prompt's chunk) is computed
by itself. Keys and values are gathered by slot, so a padded position repeats a slot of its own sequence: what others
left in the cache, NaN even, is never read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pagoda_engine.model.attention import AttentionOptions, LayerCache, Layout

_PADDING_LIMIT = 1.5  # the longest of a group may have this many times the tokens of its shortest
_QUERIES = 256  # of a chunk, whose logits are in memory at once where they are written out


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One sequence with several queries: its rows, where its context lies, and how far the queries are into it."""

    start: int
    stop: int
    slots: Tensor  # [context]

    @property
    def offset(self) -> int:
        return len(self.slots) - (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class _Group:
    """Sequences with one query each and about as many tokens."""

    rows: Tensor  # [sequences]
    slots: Tensor  # [sequences * longest]
    lengths: Tensor  # [sequences, 1]
    longest: int
    ragged: bool


class TorchAttention:
    """`AttentionKernels` in torch's own operations."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        counts = [stop - start for start, stop in zip(layout.starts, layout.starts[1:], strict=False)]
        self._chunks = [self._chunk(index) for index, count in enumerate(counts) if count > 1]
        self._groups = [self._group(members) for members in self._similar(counts)]
        self._group_masks: dict[tuple[int, int | None], Tensor] = {}
        self._chunk_masks: dict[tuple[int, int | None], Tensor] = {}
        self._only_group = not self._chunks and len(self._groups) == 1

    def write_kv(self, layer: LayerCache, keys: Tensor, values: Tensor) -> None:
        _store(layer.keys, layer.key_scale, self._layout.slots, keys)
        _store(layer.values, layer.value_scale, self._layout.slots, values)

    def paged_attention(self, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        if self._only_group:
            return self._attend_group(0, layer, queries, options)
        output = queries.new_empty(*queries.shape[:-1], layer.values.shape[-1])
        for index, group in enumerate(self._groups):
            output[group.rows] = self._attend_group(index, layer, queries[group.rows], options)
        for chunk in self._chunks:
            rows = slice(chunk.start, chunk.stop)
            output[rows] = self._attend_chunk(chunk, layer, queries[rows], options)
        return output

    def _attend_group(self, index: int, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        group = self._groups[index]
        count, heads, head_dim = queries.shape
        keys, values = _gather(layer, group.slots, queries.dtype)
        kv_heads = keys.shape[-2]
        # The query heads that share a key head take the place of queries, so nothing is repeated in memory.
        output = _softmax_attention(
            queries.reshape(count, kv_heads, heads // kv_heads, head_dim),
            keys.view(count, group.longest, kv_heads, -1).transpose(1, 2),
            values.view(count, group.longest, kv_heads, -1).transpose(1, 2),
            self._group_mask(index, options.window, queries.dtype),
            options,
        )
        return output.reshape(count, heads, -1)

    def _attend_chunk(self, chunk: _Chunk, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        keys, values = _gather(layer, chunk.slots, queries.dtype)
        repeats = queries.shape[1] // keys.shape[1]
        keys, values = (part.repeat_interleave(repeats, dim=1).transpose(0, 1)[None] for part in (keys, values))
        queries = queries.transpose(0, 1)[None]
        mask = self._chunk_mask(chunk, options, queries.dtype)
        if mask is None:
            output = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=options.scale)
        else:
            # Where logits are written out, those of a long chunk would take too much memory at once.
            step = len(mask) if options.plain else _QUERIES
            pieces = [slice(first, first + step) for first in range(0, len(mask), step)]
            parts = [_softmax_attention(queries[:, :, p], keys, values, mask[p], options) for p in pieces]
            output = torch.cat(parts, dim=2)
        return output[0].transpose(0, 1)

    def _chunk_mask(self, chunk: _Chunk, options: AttentionOptions, dtype: torch.dtype) -> Tensor | None:
        """Additive mask [queries, context] of one chunk, shared by all layers with that window.

        None where torch's own causal attention does without.
        """
        window = options.window
        if window is not None and window >= len(chunk.slots):
            window = None
        if options.plain and not chunk.offset and window is None:
            return None
        key = (chunk.start, window)
        if key not in self._chunk_masks:
            positions = torch.arange(len(chunk.slots), device=chunk.slots.device)
            distance = positions[chunk.offset :, None] - positions
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            self._chunk_masks[key] = _additive(hidden, dtype)
        return self._chunk_masks[key]

    def _group_mask(self, index: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Additive mask [sequences, 1, 1, longest] of one group, shared by all layers with that window."""
        group = self._groups[index]
        if window is not None and window >= group.longest:
            window = None
        if not group.ragged and window is None:
            return None
        key = (index, window)
        if key not in self._group_masks:
            positions = torch.arange(group.longest, device=group.rows.device)
            hidden = positions >= group.lengths
            if window is not None:
                hidden |= positions < group.lengths - window
            self._group_masks[key] = _additive(hidden, dtype)[:, None, None, :]
        return self._group_masks[key]

    def _similar(self, counts: list[int]) -> list[list[int]]:
        """Indices of the sequences with one query, in groups whose padding costs little."""
        contexts = self._layout.contexts
        single = [index for index, count in enumerate(counts) if count == 1]
        groups: list[list[int]] = []
        for index in sorted(single, key=lambda index: contexts[index]):
            if groups and contexts[index] <= _PADDING_LIMIT * contexts[groups[-1][0]]:
                groups[-1].append(index)
            else:
                groups.append([index])
        return [sorted(group) for group in groups]

    def _chunk(self, index: int) -> _Chunk:
        start, stop = self._layout.starts[index : index + 2]
        context = self._layout.contexts[index]
        return _Chunk(start, stop, self._slots([index], context).flatten())

    def _group(self, members: list[int]) -> _Group:
        device = self._layout.slots.device
        lengths = [self._layout.contexts[index] for index in members]
        longest = max(lengths)
        rows = torch.tensor([self._layout.starts[index] for index in members], device=device)
        slots = self._slots(members, longest)
        columns = torch.tensor(lengths, device=device)[:, None]
        ragged = min(lengths) < longest
        if ragged:
            padding = torch.arange(longest, device=device) >= columns
            slots = torch.where(padding, slots[:, :1], slots)
        return _Group(rows, slots.flatten(), columns, longest, ragged)

    def _slots(self, members: list[int], length: int) -> Tensor:
        """The slots of the first `length` tokens of each member, [members, length]; past its end, any."""
        size, device = self._layout.block_size, self._layout.slots.device
        width = -(-length // size)
        tables = [self._layout.tables[index][:width] for index in members]
        blocks = torch.tensor([table + (table[0],) * (width - len(table)) for table in tables], device=device)
        return (blocks[:, :, None] * size + torch.arange(size, device=device)).flatten(1)[:, :length]


def _store(cache: Tensor, scale: Tensor | None, slots: Tensor, rows: Tensor) -> None:
    """Write rows [slots, kv_heads, dim] to slots of a cache [blocks, block_size, kv_heads, dim]."""
    if scale is None:
        cache.flatten(0, 1).index_copy_(0, slots, rows)
        return
    largest = torch.finfo(cache.dtype).max
    stored = (rows.float() / scale[:, None]).clamp(-largest, largest).to(cache.dtype)
    # Few of torch's operations know a float8, and moving needs to know its size only.
    cache.view(torch.uint8).flatten(0, 1).index_copy_(0, slots, stored.view(torch.uint8))


def _gather(layer: LayerCache, slots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values of slots, [slots, kv_heads, head_dim] each."""

    def rows(cache: Tensor, scale: Tensor | None) -> Tensor:
        if scale is None:
            return cache.flatten(0, 1).index_select(0, slots)
        stored = cache.view(torch.uint8).flatten(0, 1).index_select(0, slots).view(cache.dtype)
        return (stored.float() * scale[:, None]).to(dtype)

    return rows(layer.keys, layer.key_scale), rows(layer.values, layer.value_scale)


def _softmax_attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, options: AttentionOptions
) -> Tensor:
    """Attention of queries [sequences, kv_heads, queries, dim] to keys and values [sequences, kv_heads, context, dim].

    The additive mask spreads to [sequences, kv_heads, queries, context]. What torch's own operation can't do is written
    out, in float32.
    """
    if options.plain:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=options.scale)
    wide = torch.promote_types(queries.dtype, torch.float32)
    logits = queries.to(wide) @ keys.to(wide).transpose(-1, -2) * options.scale
    if options.softcap is not None:
        logits = options.softcap * torch.tanh(logits / options.softcap)
    if mask is not None:
        logits = logits + mask
    if options.sinks is not None:
        # One for each head: of a group's heads many stand in the place of queries, of a chunk's none.
        sinks = options.sinks.to(wide).view(logits.shape[1], -1, 1)
        logits = torch.cat((logits, sinks.expand(*logits.shape[:-1], 1)), dim=-1)
    weights = logits.softmax(dim=-1)[..., : keys.shape[-2]]
    return (weights @ values.to(wide)).to(queries.dtype)


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where a token is seen, minus infinity where it is hidden."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
