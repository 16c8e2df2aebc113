"""Paged attention: decoding and prompts, with or without a cached prefix, causal, in windows; one kernel.

A tile is up to eight rows, a row being one query head of one token, of those that share a KV head. Its scores over all
visible blocks are kept, so that the softmax is the plain one; probabilities are divided by their sum at the end.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Any, Final

import numpy as np

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import LANES, fetch_early
from pagoda_engine.kernels.cpu.norm import narrow
from pagoda_engine.kernels.cpu.rotary import BLOCK
from pagoda_engine.kernels.cpu.softmax import soften
from pagoda_engine.kernels.cpu.tiles import score_tile, value_tile
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

ROWS: Final = 8


@kernel
def attention(
    words: Shared,
    phase: int,
    x: Any,
    x_stride: int,
    heads: int,
    kv_heads: int,
    dim: int,
    scale: float,
    window: int,
    tiles: Any,
    num_tiles: int,
    starts: Any,
    contexts: Any,
    tables: Any,
    table_width: int,
    cache: Any,
    block_size: int,
    keys_at: int,
    values_at: int,
    queries: Any,
    scores: Any,
    chances: Any,
    sums: Any,
    thread: int,
    span: int,
    y: Any,
    y_stride: int,
) -> int:
    """Shared among the threads. x: float32 [tokens, queries | ...], prepared; y: elements [tokens, heads * dim].

    tiles: int64 [num_tiles, 2], a tile's sequence and first row; sequence i has the tokens `starts[i]:starts[i + 1]`,
    the last of its `contexts[i]`; tables: int32, `table_width` blocks for each sequence; `window` 0 means none; the
    cache is that of `rotary.prepare`. The next four are scratch of all threads, `ROWS` rows each: elements [dim],
    float32 and elements [span], float32 [dim padded to whole panels], where `span` is a multiple of 32 that holds the
    longest context and sixteen more.
    """
    group = heads // kv_heads
    panels = (dim + LANES - 1) // LANES
    query_stride = (dim + 31) // 32 * 32
    queries_at, scores_at, sums_at = thread * ROWS * query_stride, thread * ROWS * span, thread * ROWS * panels * LANES
    piece = take(words, phase)
    while piece < num_tiles * kv_heads:
        tile, head = piece // kv_heads, piece % kv_heads
        sequence, first = tiles[tile, 0], tiles[tile, 1]
        start, context = starts[sequence], contexts[sequence]
        count = starts[sequence + 1] - start
        rows = min(ROWS, count * group - first)
        for r in range(rows):
            token, h = start + (first + r) // group, head * group + (first + r) % group
            narrow(x, token * x_stride + h * dim, queries, queries_at + r * query_stride, dim)
        position = context - count + first // group  # of the first row's token
        high = context - count + (first + rows - 1) // group + 1
        block = max(0, position + 1 - window) // BLOCK if window > 0 else 0
        blocks = (high + BLOCK - 1) // BLOCK - block
        table_at = sequence * table_width + block
        key_at = keys_at + head * dim * BLOCK
        value_at = values_at + head * panels * LANES * BLOCK
        for j in range(0, blocks - 1, 2):
            for k in range(j, j + 2):
                fetch_early(cache, value_at + tables[table_at + k] * block_size, panels * LANES * BLOCK)
            for k in range(j + 2, min(j + 4, blocks)):
                fetch_early(cache, key_at + tables[table_at + k] * block_size, dim * BLOCK)
            score_tile(2, rows, queries, queries_at, query_stride, cache, key_at, tables, table_at + j, block_size,
                       dim, scores, scores_at + j * BLOCK, span)  # fmt: skip
        if blocks % 2:
            j = blocks - 1
            score_tile(1, rows, queries, queries_at, query_stride, cache, key_at, tables, table_at + j, block_size,
                       dim, scores, scores_at + j * BLOCK, span)  # fmt: skip
        for r in range(rows):
            seen = context - count + (first + r) // group + 1
            low = max(0, seen - window) if window > 0 else 0
            at = scores_at + r * span
            scores[at] = soften(
                scores, at, low - block * BLOCK, seen - block * BLOCK, blocks, np.float32(scale), chances
            )
        for p in range(0, panels - 1, 2):
            value_tile(2, rows, chances, scores_at, span, cache, value_at + p * LANES * BLOCK, tables, table_at,
                       block_size, blocks, sums, sums_at + p * LANES, panels * LANES)  # fmt: skip
        if panels % 2:
            p = panels - 1
            value_tile(1, rows, chances, scores_at, span, cache, value_at + p * LANES * BLOCK, tables, table_at,
                       block_size, blocks, sums, sums_at + p * LANES, panels * LANES)  # fmt: skip
        for r in range(rows):
            inverse = np.float32(1) / scores[scores_at + r * span]
            at = sums_at + r * panels * LANES
            output = sums[at : at + dim]
            for d in range(dim):
                output[d] *= inverse
            token, h = start + (first + r) // group, head * group + (first + r) % group
            narrow(sums, at, y, token * y_stride + h * dim, dim)
        piece = take_next(words, phase)
    return finish(words, phase, num_tiles * kv_heads)
