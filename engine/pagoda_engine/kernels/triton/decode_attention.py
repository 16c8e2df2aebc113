"""Attention of one query a sequence to its cached tokens, in one launch a layer.

A program takes one item of the plan (`decode_plan`) and one KV head with all query heads that share it, so that a key
or value is read once, and the tensor cores have rows to work on (flash-decoding; Dao and others, 2023). A sequence that
was cut leaves partial results; the program that arrives last merges them, which spares a second launch in each layer.

Keys are addressed token by token through the block table: a tile starts where an item starts, whatever the block size.
A row of 64 to 256 bytes is contiguous, which is what coalescing needs; descriptors (TMA) would want whole blocks.
Every turn is masked, other than for prompts: the mask is free where memory is the limit, and a single loop keeps the
last tile's loads in flight with the others.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# Triton is untyped, and types inside a kernel are Triton's.
# ruff: noqa: ANN001, ANN202, N803 - Triton's habit: what is known when compiling is in capitals
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from pagoda_engine.kernels.paged import AttentionOptions, LayerCache
from pagoda_engine.kernels.triton.chip import decode_tile
from pagoda_engine.kernels.triton.decode_plan import DecodePlan
from pagoda_engine.kernels.triton.softmax import factors, finish, squashed, turn


@dataclass(frozen=True, slots=True, eq=False)
class DecodeSpace:
    """Where the items of cut sequences leave what they have, for all layers one after the other.

    sums: float32 [items, heads, value_dim], not yet divided; tops and totals: float32 [items, heads]; arrivals: int32
    [sequences, heads], zero between launches.
    """

    sums: Tensor
    tops: Tensor
    totals: Tensor
    arrivals: Tensor

    @classmethod
    def allocate(cls, plan: DecodePlan, heads: int, value_dim: int) -> DecodeSpace:
        """Space for the items of `plan`, in layers with up to so many heads and value features."""
        device, items = plan.items.device, plan.items.shape[1]
        return cls(
            torch.empty(items, heads, value_dim, device=device),
            torch.empty(items, heads, device=device),
            torch.empty(items, heads, device=device),
            torch.zeros(items, heads, dtype=torch.int32, device=device),
        )


def decode(
    queries: Tensor,
    layer: LayerCache,
    tables: Tensor,
    plan: DecodePlan,
    space: DecodeSpace,
    out: Tensor,
    options: AttentionOptions,
    *,
    starts: Tensor | None = None,
) -> None:
    """Write the attention of `queries` [rows, heads, dim] to `out` [rows, heads, value_dim].

    tables: int32 [sequences, blocks]. `plan` was filled with this step's contexts, the same `starts`, and
    `options.window`. Sequence i's query is row i, or row `starts[i]`; rows that the plan has no item for are not
    written. The last dimension of every tensor is contiguous.
    """
    _, block, kv_heads, dim = layer.keys.shape
    value_dim = layer.values.shape[-1]
    heads = queries.shape[1]
    group = heads // kv_heads
    tile = decode_tile(group, dim, value_dim, layer.keys.itemsize)
    scale, squash = factors(options.scale, options.softcap)
    items = plan.items.shape[1]
    parts = triton.cdiv(group, tile.rows)
    _decode[(kv_heads * parts, items)](
        queries, layer.keys, layer.values, layer.key_scale, layer.value_scale, options.sinks, tables, starts,
        plan.items, out, space.sums, space.tops, space.totals, space.arrivals,
        scale, squash, items, tables.stride(0), queries.stride(0), queries.stride(1), out.stride(0), out.stride(1),
        *layer.keys.stride()[:3], *layer.values.stride()[:3], space.sums.stride(0), space.sums.stride(1),
        BLOCK=block, GROUP=group, PARTS=parts, DIM=dim, VALUE_DIM=value_dim, ROWS=tile.rows, TOKENS=tile.tokens,
        COLUMNS=triton.next_power_of_2(max(16, dim)), VALUE_COLUMNS=triton.next_power_of_2(max(16, value_dim)),
        num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True,
    )  # fmt: skip


@triton.jit(
    do_not_specialize=["items", "table_stride"],
    do_not_specialize_on_alignment=["tables", "starts", "plan"],
)
def _decode(
    queries, keys, values, key_scale, value_scale, sinks, tables, starts,
    plan, out, partial_sums, partial_tops, partial_totals, arrivals,
    scale, squash, items, table_stride, query_row, query_head, out_row, out_head,
    key_block, key_token, key_head, value_block, value_token, value_head, partial_item, partial_head,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    COLUMNS: tl.constexpr, VALUE_COLUMNS: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    kv_head = tl.program_id(0) // PARTS
    item = tl.program_id(1)
    sequence = tl.load(plan + item)
    if sequence < 0:
        return
    start = tl.load(plan + items + item)
    stop = tl.load(plan + 2 * items + item)
    row = sequence if starts is None else tl.load(starts + sequence)

    member = tl.program_id(0) % PARTS * ROWS + tl.arange(0, ROWS)
    real = member < GROUP
    head = kv_head * GROUP + member
    column = tl.arange(0, COLUMNS)
    value_column = tl.arange(0, VALUE_COLUMNS)
    query = tl.load(
        queries + row.to(tl.int64) * query_row + head[:, None] * query_head + column[None, :],
        mask=real[:, None] & (column < DIM)[None, :],
        other=0.0,
    )
    if keys.dtype.element_ty == tl.float8e4nv:
        # Every e4m3 is a float16, by one instruction for two of them; to bfloat16 it would take three for each.
        query = query.to(tl.float16)
        if squash is None:
            scale = scale * tl.load(key_scale + kv_head)
        else:
            squash = squash * tl.load(key_scale + kv_head)

    sums = tl.zeros([ROWS, VALUE_COLUMNS], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    table = tables + sequence.to(tl.int64) * table_stride
    for at in range(start, stop, TOKENS):
        token = at + tl.arange(0, TOKENS)
        seen = token < stop
        block = tl.load(table + token // BLOCK, mask=seen, other=0).to(tl.int64)
        key = tl.load(
            keys + (block * key_block + token % BLOCK * key_token + kv_head * key_head)[None, :] + column[:, None],
            mask=seen[None, :] & (column < DIM)[:, None],
            other=0.0,
        )
        scores = tl.dot(query, key.to(query.dtype), input_precision="ieee")
        if squash is not None:
            scores = squashed(scores, squash)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        value = tl.load(
            values
            + (block * value_block + token % BLOCK * value_token + kv_head * value_head)[:, None]
            + value_column[None, :],
            mask=seen[:, None] & (value_column < VALUE_DIM)[None, :],
            other=0.0,
        )
        sums, top, total = turn(scores, value.to(query.dtype), sums, top, total, scale, MASKED=False)

    count = tl.load(plan + 4 * items + item)
    written = real[:, None] & (value_column < VALUE_DIM)[None, :]
    partial = head[:, None] * partial_head + value_column[None, :]
    if count > 1:
        heads = tl.num_programs(0) // PARTS * GROUP
        tl.store(partial_sums + item.to(tl.int64) * partial_item + partial, sums, mask=written)
        tl.store(partial_tops + item * heads + head, top, mask=real)
        tl.store(partial_totals + item * heads + head, total, mask=real)
        # All threads have stored before one of them counts the arrival; release and acquire carry it to the last one.
        tl.debug_barrier()
        arrival = arrivals + sequence * tl.num_programs(0) + tl.program_id(0)
        if tl.atomic_add(arrival, 1, sem="acq_rel", scope="gpu") != count - 1:
            return
        tl.store(arrival, 0)
        first = tl.load(plan + 3 * items + item)
        top = tl.full([ROWS], float("-inf"), tl.float32)
        for other in range(first, first + count):
            place = other * heads + head
            top = tl.maximum(top, tl.load(partial_tops + place, mask=real, other=0.0, cache_modifier=".cg"))
        sums = tl.zeros([ROWS, VALUE_COLUMNS], tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        # No turn waits for another's loads, so that several are in flight.
        for other in tl.range(first, first + count, loop_unroll_factor=4):
            place = other * heads + head
            kept = tl.exp2(tl.load(partial_tops + place, mask=real, other=0.0, cache_modifier=".cg") - top)
            total += kept * tl.load(partial_totals + place, mask=real, other=0.0, cache_modifier=".cg")
            more = partial_sums + tl.cast(other, tl.int64) * partial_item + partial
            sums += kept[:, None] * tl.load(more, mask=written, other=0.0, cache_modifier=".cg")

    result = finish(sums, top, total, sinks, head, real)
    if value_scale is not None:
        result *= tl.load(value_scale + kv_head)
    tl.store(
        out + row.to(tl.int64) * out_row + head[:, None] * out_head + value_column[None, :],
        result.to(out.dtype.element_ty),
        mask=written,
    )
