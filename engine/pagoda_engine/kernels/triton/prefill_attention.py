"""Attention of many queries a sequence, the last of its tokens, to all of its cached tokens: one launch a layer.

The keys and values of the chunk itself have been written to the cache by then, so that there is one loop whether or not
a prefix was there before. A program takes consecutive tokens of one sequence with all query heads that share a KV head:
its rows fill the tensor cores for short chunks too, and each key is loaded once for the whole group (vLLM's unified
kernel packs rows alike; here tiles are as large as prompts want them, and decoding has a kernel of its own).

The grid depends on the number of tokens and sequences alone: tile t is of sequence i if `starts[i] // tokens + i` is
the last that is not beyond t (vLLM's `find_seq_idx`); up to one tile a sequence is left over and ends at once. Programs
begin with a batch's last tiles, whose contexts are the longest, so that what runs last is short.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# Triton is untyped, and types inside a kernel are Triton's.
# ruff: noqa: ANN001, ANN202, N803 - Triton's habit: what is known when compiling is in capitals
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from pagoda_engine.kernels.paged import AttentionOptions, LayerCache
from pagoda_engine.kernels.triton.chip import prefill_tile
from pagoda_engine.kernels.triton.softmax import factors, finish, squashed, turn

_SEQUENCES: Final = 128


def prefill(
    queries: Tensor,
    layer: LayerCache,
    tables: Tensor,
    starts: Tensor,
    contexts: Tensor,
    out: Tensor,
    options: AttentionOptions,
) -> None:
    """Write the attention of `queries` [tokens, heads, dim] to `out` [tokens, heads, value_dim].

    tables: int32 [sequences, blocks]; starts: int32 [sequences + 1], the rows of each sequence; contexts: int32
    [sequences], tokens in the cache, those of the rows included. Rows of sequences with one query are not written:
    `decode` does them. The last dimension of every tensor is contiguous.
    """
    _, block, kv_heads, dim = layer.keys.shape
    value_dim = layer.values.shape[-1]
    tokens, heads, _ = queries.shape
    group = heads // kv_heads
    tile = prefill_tile(group, dim, value_dim, layer.keys.itemsize)
    chunk = tile.rows // group
    scale, squash = factors(options.scale, options.softcap)
    sequences = len(contexts)
    _prefill[(tokens // chunk + sequences, kv_heads)](
        queries, layer.keys, layer.values, layer.key_scale, layer.value_scale, options.sinks, tables, starts, contexts,
        out, scale, squash, options.window, sequences, tables.stride(0),
        queries.stride(0), queries.stride(1), out.stride(0), out.stride(1),
        *layer.keys.stride()[:3], *layer.values.stride()[:3],
        BLOCK=block, GROUP=group, DIM=dim, VALUE_DIM=value_dim, COLUMNS=triton.next_power_of_2(max(16, dim)),
        VALUE_COLUMNS=triton.next_power_of_2(max(16, value_dim)), ROWS=tile.rows, CHUNK=chunk, TOKENS=tile.tokens,
        SEQUENCES=_SEQUENCES, num_warps=tile.warps, num_stages=tile.stages,
        enable_fp_fusion=True,
    )  # fmt: skip


@triton.jit(
    do_not_specialize=["sequences", "table_stride"],
    do_not_specialize_on_alignment=["tables", "starts", "contexts"],
)
def _prefill(
    queries, keys, values, key_scale, value_scale, sinks, tables, starts, contexts,
    out, scale, squash, window, sequences, table_stride, query_row, query_head, out_row, out_head,
    key_block, key_token, key_head, value_block, value_token, value_head,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr, COLUMNS: tl.constexpr,
    VALUE_COLUMNS: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, TOKENS: tl.constexpr,
    SEQUENCES: tl.constexpr,
):  # fmt: skip
    number = tl.num_programs(0) - 1 - tl.program_id(0)
    sequence = _owner(starts, number, sequences, CHUNK, SEQUENCES)
    begin = tl.load(starts + sequence)
    count = tl.load(starts + sequence + 1) - begin
    first = (number - begin // CHUNK - sequence) * CHUNK
    if (first >= count) | (count == 1):
        return

    kv_head = tl.program_id(1)
    lane = tl.arange(0, ROWS)
    offset = first + lane // GROUP
    real = (lane < CHUNK * GROUP) & (offset < count)
    row = begin + offset
    head = kv_head * GROUP + lane % GROUP
    column = tl.arange(0, COLUMNS)
    value_column = tl.arange(0, VALUE_COLUMNS)
    query = tl.load(
        queries + (row.to(tl.int64) * query_row + head * query_head)[:, None] + column[None, :],
        mask=real[:, None] & (column < DIM)[None, :],
        other=0.0,
    )
    if keys.dtype.element_ty == tl.float8e4nv:  # see decode_attention
        query = query.to(tl.float16)
        if squash is None:
            scale = scale * tl.load(key_scale + kv_head)
        else:
            squash = squash * tl.load(key_scale + kv_head)

    before = tl.load(contexts + sequence) - count  # tokens of the sequence that came before the chunk
    position = before + offset
    low = before + first
    stop = before + tl.minimum(first + CHUNK, count)
    # All rows see the tokens from `open` to `low`, so nothing is masked there; [begin, open) is cut off by windows of
    # some rows, [low, stop) by causality. Tiles start at `start`, wherever that is in a block.
    start = low * 0 if window is None else tl.maximum(low - window + 1, 0)
    plain = (low + 1 - start) // TOKENS * TOKENS + start
    keys += kv_head * key_head
    values += kv_head * value_head
    table = tables + sequence.to(tl.int64) * table_stride
    sums = tl.zeros([ROWS, VALUE_COLUMNS], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    opened = start
    if window is not None:
        opened = tl.minimum(start + tl.cdiv(tl.maximum(stop - window - start, 0), TOKENS) * TOKENS, stop)
        sums, top, total = _tiles(
            query, keys, values, table, sums, top, total, scale, squash, window, position, start, opened, stop,
            key_block, key_token, value_block, value_token,
            BLOCK, DIM, VALUE_DIM, COLUMNS, VALUE_COLUMNS, TOKENS, MASKED=True,
        )  # fmt: skip
    sums, top, total = _tiles(
        query, keys, values, table, sums, top, total, scale, squash, window, position, opened, plain, stop,
        key_block, key_token, value_block, value_token,
        BLOCK, DIM, VALUE_DIM, COLUMNS, VALUE_COLUMNS, TOKENS, MASKED=False,
    )  # fmt: skip
    sums, top, total = _tiles(
        query, keys, values, table, sums, top, total, scale, squash, window, position, tl.maximum(opened, plain), stop,
        stop, key_block, key_token, value_block, value_token,
        BLOCK, DIM, VALUE_DIM, COLUMNS, VALUE_COLUMNS, TOKENS, MASKED=True,
    )  # fmt: skip

    result = finish(sums, top, total, sinks, head, real)
    if value_scale is not None:
        result *= tl.load(value_scale + kv_head)
    tl.store(
        out + (row.to(tl.int64) * out_row + head * out_head)[:, None] + value_column[None, :],
        result.to(out.dtype.element_ty),
        mask=real[:, None] & (value_column < VALUE_DIM)[None, :],
    )


@triton.jit
def _owner(starts, number, sequences, CHUNK: tl.constexpr, SEQUENCES: tl.constexpr):
    """The sequence of a tile. Its chunk may have ended before the tile begins."""
    owner = number * 0 - 1
    for at in range(0, sequences, SEQUENCES):
        index = at + tl.arange(0, SEQUENCES)
        begin = tl.load(starts + index, mask=index < sequences, other=0)
        owner += tl.sum(((index < sequences) & (begin // CHUNK + index <= number)).to(tl.int32))
    return owner


@triton.jit
def _tiles(
    query, keys, values, table, sums, top, total, scale, squash, window, position, start, stop, end,
    key_block, key_token, value_block, value_token,
    BLOCK: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr, COLUMNS: tl.constexpr,
    VALUE_COLUMNS: tl.constexpr, TOKENS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Tiles that begin in [start, stop). With MASKED, a row sees what its position allows, and no tile passes `end`.

    Without, all rows see all tokens of all tiles, and the masks that remain, of padded columns, are known when
    compiling.
    """
    column = tl.arange(0, COLUMNS)
    value_column = tl.arange(0, VALUE_COLUMNS)
    for at in range(start, stop, TOKENS):
        token = at + tl.arange(0, TOKENS)
        loaded = token < end if MASKED else token >= 0
        block = tl.load(table + token // BLOCK, mask=loaded, other=0).to(tl.int64)
        key = tl.load(
            keys + (block * key_block + token % BLOCK * key_token)[None, :] + column[:, None],
            mask=loaded[None, :] & (column < DIM)[:, None],
            other=0.0,
        )
        scores = tl.dot(query, key.to(query.dtype), input_precision="ieee")
        if squash is not None:
            scores = squashed(scores, squash)
        if MASKED:
            seen = token[None, :] <= position[:, None]
            if window is not None:
                seen = seen & (token[None, :] > position[:, None] - window)
            scores = tl.where(seen, scores, float("-inf"))
        value = tl.load(
            values + (block * value_block + token % BLOCK * value_token)[:, None] + value_column[None, :],
            mask=loaded[:, None] & (value_column < VALUE_DIM)[None, :],
            other=0.0,
        )
        sums, top, total = turn(scores, value.to(query.dtype), sums, top, total, scale, MASKED=MASKED)
    return sums, top, total
