"""What the kernels' launches depend on of a GPU, and the tiles that follow from it.

Tiles are decided by arithmetic over shapes known at load, never by trial at serving time: a model's layers need a
handful of compiled kernels, and all of them are there before the first request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU, as far as work is cut for it: its multiprocessors, and bytes of their memory that one program may use.

    Where Triton interprets its kernels there is no such memory to run out of.
    """

    processors: int
    shared: int = 1 << 30

    @classmethod
    def of(cls, device: torch.device) -> Chip:
        """The chip of a CUDA device; on a CPU, where Triton interprets, one so small that work is cut too."""
        if device.type != "cuda":
            return cls(processors=2)
        properties = torch.cuda.get_device_properties(device)
        return cls(properties.multi_processor_count, properties.shared_memory_per_block_optin)

    def lacks(self, group: int, dim: int, value_dim: int, itemsize: int) -> str | None:
        """Why the kernels can't run on this chip for `group` query heads a KV head, for people; None where they can.

        Tiles of 16 bits and less fit each chip since Ampere, whatever the shape.
        """
        needed = full_prefill_bytes(group, dim, value_dim) if itemsize == 4 else 0
        if needed <= self.shared:
            return None
        return (
            f"{group} query heads a KV head of {max(dim, value_dim)} features take {needed} bytes of shared memory in "
            f"float32, and this GPU has {self.shared}; --dtype bfloat16 takes less"
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """How one program works: `rows` of queries (a row is one head of one token), `tokens` of the cache at a time.

    Of the `stages` that the compiler puts a turn's loads in, each turn needs two: one for the block table's entries,
    one for what they point to. So three have the next tile on its way while one is computed, and five the next two.
    """

    rows: int
    tokens: int
    warps: int
    stages: int


def decode_tile(group: int, dim: int, value_dim: int, itemsize: int) -> Tile:
    """The tile for one query a sequence, `group` query heads a KV head, and cache elements of `itemsize` bytes.

    Memory is the limit here. An H200 must have about 32 KiB on the way to each multiprocessor (4.8 TB/s for 0.8 us,
    over 132 of them): a tile of 16-bit keys and values takes that much, two are on their way, and registers and shared
    memory let three programs share a multiprocessor. The tensor cores take no fewer than 16 rows, of which most are
    padding: that costs nothing that is scarce. Float32 has no tensor cores, and more rows than 16 would spill.
    """
    full = itemsize == 4
    rows = 16 if full else _power(group, 16, 64)
    # Masks of padded columns take registers, which 64 rows have none left of; wide rows take Ada's shared memory.
    crowded = full or (rows == 64 and (dim != _power(dim, 16) or max(dim, value_dim) > 128))
    tokens = _tokens(dim, value_dim, _ELEMENTS // 2 if crowded else _ELEMENTS)
    return Tile(rows, min(128, tokens), warps=4, stages=5)


def prefill_tile(group: int, dim: int, value_dim: int, itemsize: int) -> Tile:
    """The tile for many queries a sequence.

    Arithmetic is the limit here. 128 rows and eight warps are two of Hopper's warp groups, each with the 64 rows of an
    instruction; up to 128 features an accumulator takes 64 registers a thread. Wider ones get half the rows. More
    tokens at a time would spill. In float32, without tensor cores, what is multiplied lies in registers.
    """
    wide = max(dim, value_dim) > 128
    if itemsize == 4:
        rows, tokens, warps = (16 if wide else 32), _tokens(dim, value_dim, _ELEMENTS // 4), 4
    else:
        rows, tokens, warps = (64 if wide else 128), _tokens(dim, value_dim, _ELEMENTS), 8
    return Tile(max(rows, _power(group, 16)), min(64, tokens), warps, stages=3)


def full_prefill_bytes(group: int, dim: int, value_dim: int) -> int:
    """Shared memory of a program of `prefill_tile` in float32: its operands and scores, a number a row, an address a
    token."""
    tile = prefill_tile(group, dim, value_dim, itemsize=4)
    columns, value_columns = _power(dim, 16), _power(value_dim, 16)
    operands = tile.rows * columns + tile.tokens * (columns + value_columns) + tile.rows * tile.tokens
    return 4 * operands + 4 * tile.rows + 8 * tile.tokens


_ELEMENTS: Final = 16 << 10  # of keys and values in a tile


def _tokens(dim: int, value_dim: int, elements: int) -> int:
    """The power of two of tokens with up to so many elements of keys and values, padded as they are; at least 16."""
    fitting = elements // (_power(dim, 16) + _power(value_dim, 16))
    return max(16, 1 << fitting.bit_length() >> 1)


def _power(value: int, least: int, most: int | None = None) -> int:
    """The power of two at or above `value`, between `least` and `most`."""
    power = max(least, 1 << (value - 1).bit_length())
    return power if most is None else min(most, power)
