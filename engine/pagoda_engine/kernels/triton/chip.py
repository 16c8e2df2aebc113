"""What the kernels' launches depend on of a GPU, and the tiles that follow from it.

Tiles are decided by arithmetic over shapes known at load, never by trial at serving time: a model's layers need a
handful of compiled kernels, and all of them are there before the first request.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU: multiprocessors, and the bytes of shared memory that one program may use."""

    processors: int
    shared_memory: int

    @classmethod
    def of(cls, device: torch.device) -> Chip:
        """The chip of a CUDA device."""
        properties = torch.cuda.get_device_properties(device)
        return cls(properties.multi_processor_count, properties.shared_memory_per_block_optin)


@dataclass(frozen=True, slots=True)
class Tile:
    """How one program works: `rows` of queries (a row is one head of one token), `tokens` of the cache at a time.

    `stages` is the number of such turns whose loads are in flight.
    """

    rows: int
    tokens: int
    warps: int
    stages: int


def decode_tile(group: int, dim: int, value_dim: int, itemsize: int) -> Tile:
    """The tile for one query a sequence, `group` query heads a KV head, and cache elements of `itemsize` bytes.

    Memory is the limit here. The tensor cores take no fewer than 16 rows, and most are padding: that costs nothing
    that is scarce. A stage is 32 KiB of keys and values (64 tokens of 128 bfloat16 features) and three are in flight,
    so that two programs fit on a multiprocessor of an H100 and one on a chip with 99 KiB. An H200 needs about 32 KiB
    in flight on each multiprocessor to keep its memory busy (4.8 TB/s for 0.8 us over 132 of them).
    """
    return Tile(rows=_power(group, 16, 64), tokens=_tokens(dim, value_dim, itemsize, 32 << 10), warps=4, stages=4)


def prefill_tile(group: int, dim: int, value_dim: int, itemsize: int, shared_memory: int) -> Tile:
    """The tile for many queries a sequence.

    Here arithmetic is the limit. 128 rows are two of Hopper's warp groups (64 rows an instruction), eight warps keep
    the accumulator at 64 registers a thread for 128 features; wider values get 64 rows, which keeps it there. Stages
    are as many as fit beside the queries, three at the most: more did not help FlashAttention-2 either.
    """
    width = _power(max(dim, value_dim), 16)
    if itemsize == 4:  # no tensor cores in full float32: what a thread multiplies lives in its registers
        rows, budget = (32 if width <= 128 else 16), 16 << 10
    else:
        rows, budget = (128 if width <= 128 else 64), 32 << 10
    rows = max(rows, _power(group, 16))
    tokens = _tokens(dim, value_dim, itemsize, budget)
    queries = rows * _power(dim, 16) * max(2, itemsize)
    stage = tokens * (_power(dim, 16) + _power(value_dim, 16)) * itemsize
    stages = max(1, min(3, (shared_memory - queries) // stage))
    return Tile(rows, tokens, warps=4 if width <= 64 or itemsize == 4 else 8, stages=stages)


def _tokens(dim: int, value_dim: int, itemsize: int, budget: int) -> int:
    """Tokens whose keys and values take `budget` bytes of shared memory, in which rows are padded to powers of two."""
    fitting = budget // ((_power(dim, 16) + _power(value_dim, 16)) * itemsize)
    return min(128, max(16, 1 << (fitting.bit_length() - 1)))


def _power(value: int, least: int, most: int | None = None) -> int:
    """The power of two at or above `value`, between `least` and `most`."""
    power = max(least, 1 << (value - 1).bit_length())
    return power if most is None else min(most, power)
