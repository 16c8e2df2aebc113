"""Between the projections and attention: norms of queries and keys, rotary embedding, and the write into the cache.

One program takes a token's key head with the query heads that share it, so that nothing of it goes to memory twice.
"""

from __future__ import annotations

# ruff: noqa: ANN001, ANN202, N803 - what a kernel takes is typed by Triton, and its constants are in capitals
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from pagoda_engine.kernels.paged import LayerCache


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """RMSNorm of each query and each key before the rotation; weights [dim]."""

    query: Tensor
    key: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Angles:
    """cos and sin of every position, float32 [positions, pairs]; None where a layer does not rotate."""

    cos: Tensor
    sin: Tensor


def rotate_and_write(
    qkv: Tensor,
    heads: int,
    layer: LayerCache,
    positions: Tensor,
    slots: Tensor,
    angles: Angles | None,
    norms: HeadNorms | None,
) -> Tensor:
    """Prepare contiguous rows [tokens, (heads + 2 * kv_heads) * dim] for attention. Returns the queries in them.

    Queries are normalised and rotated in place and returned as a view, [tokens, heads, dim]; keys, likewise, and
    values go to `slots` (int64, one for each token; below 0 is nowhere) of the layer's cache, whose keys and values
    have one size. `positions` (int64) choose the rows of `angles`. Computed in float32.
    """
    tokens, (kv_heads, dim) = len(qkv), layer.keys.shape[2:]
    cos, sin = (qkv, qkv) if angles is None else (angles.cos, angles.sin)
    query_gain, key_gain = (qkv, qkv) if norms is None else (norms.query, norms.key)
    half = 0 if angles is None else angles.cos.shape[1]
    group = heads // kv_heads
    if tokens:
        _rotate_and_write[(tokens, kv_heads)](
            qkv,
            layer.keys,
            layer.values,
            positions,
            slots,
            cos,
            sin,
            query_gain,
            key_gain,
            layer.key_scale,
            layer.value_scale,
            0.0 if norms is None else norms.eps,
            KV_HEADS=kv_heads,
            GROUP=group,
            DIM=dim,
            HALF=half,
            NORMED=norms is not None,
            HEADS_BLOCK=triton.next_power_of_2(group),
            PAIRS_BLOCK=triton.next_power_of_2(max(half, 1)),
            REST_BLOCK=triton.next_power_of_2(max(dim - 2 * half, 1)),
            num_warps=1 if group * dim <= 256 else 2 if group * dim <= 1024 else 4,
            enable_fp_fusion=True,
        )
    return qkv.view(tokens, heads + 2 * kv_heads, dim)[:, :heads]


@triton.jit
def _rotate_and_write(
    qkv,
    keys,
    values,
    positions,
    slots,
    cos,
    sin,
    query_gain,
    key_gain,
    key_scales,
    value_scales,
    eps,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    NORMED: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    PAIRS_BLOCK: tl.constexpr,
    REST_BLOCK: tl.constexpr,
):
    token, kv_head = tl.program_id(0), tl.program_id(1)
    row = qkv + token.to(tl.int64) * ((GROUP + 2) * KV_HEADS * DIM)
    pairs, rest = tl.arange(0, PAIRS_BLOCK)[None, :], 2 * HALF + tl.arange(0, REST_BLOCK)[None, :]
    angle = tl.load(positions + token) * HALF + pairs
    c = tl.load(cos + angle, mask=pairs < HALF, other=1.0).to(tl.float32)
    s = tl.load(sin + angle, mask=pairs < HALF, other=0.0).to(tl.float32)

    heads = tl.arange(0, HEADS_BLOCK)[:, None]
    there = heads < GROUP
    at = row + (kv_head * GROUP + heads) * DIM
    first, second, other = _head(at, query_gain, eps, c, s, pairs, rest, there, HALF, DIM, NORMED)
    _store(at, first, second, other, 1.0, pairs, rest, there, HALF, DIM)

    slot = tl.load(slots + token)
    one = tl.zeros([1, 1], tl.int32)
    stored = slot + one >= 0
    key_scale, value_scale = 1.0, 1.0
    if key_scales is not None:
        key_scale = tl.load(key_scales + kv_head)
        value_scale = tl.load(value_scales + kv_head)
    key = row + (GROUP * KV_HEADS + kv_head) * DIM + one
    to = (slot * KV_HEADS + kv_head) * DIM + one
    first, second, other = _head(key, key_gain, eps, c, s, pairs, rest, stored, HALF, DIM, NORMED)
    _store(keys + to, first, second, other, key_scale, pairs, rest, stored, HALF, DIM)
    first, second, other = _load(key + KV_HEADS * DIM, pairs, rest, stored, HALF, DIM)
    _store(values + to, first, second, other, value_scale, pairs, rest, stored, HALF, DIM)


@triton.jit
def _head(at, gain, eps, c, s, pairs, rest, there, HALF: tl.constexpr, DIM: tl.constexpr, NORMED: tl.constexpr):
    """Heads that start at `at` [heads, 1], normalised and rotated: both halves of the pairs, and what has no pair."""
    first, second, other = _load(at, pairs, rest, there, HALF, DIM)
    if NORMED:
        square = tl.sum(first * first, 1) + tl.sum(second * second, 1) + tl.sum(other * other, 1)
        scale = tl.rsqrt(square / DIM + eps)[:, None]
        gain_first, gain_second, gain_other = _load(gain, pairs, rest, tl.zeros([1, 1], tl.int32) == 0, HALF, DIM)
        first, second, other = first * scale * gain_first, second * scale * gain_second, other * scale * gain_other
    return first * c - second * s, second * c + first * s, other


@triton.jit
def _load(at, pairs, rest, there, HALF: tl.constexpr, DIM: tl.constexpr):
    first = tl.load(at + pairs, mask=there & (pairs < HALF), other=0.0).to(tl.float32)
    second = tl.load(at + HALF + pairs, mask=there & (pairs < HALF), other=0.0).to(tl.float32)
    other = tl.load(at + rest, mask=there & (rest < DIM), other=0.0).to(tl.float32)
    return first, second, other


@triton.jit
def _store(at, first, second, other, scale, pairs, rest, there, HALF: tl.constexpr, DIM: tl.constexpr):
    """Store heads in the type of what `at` points to; float8 has no infinity, so its numbers end at 448."""
    _store_part(at + pairs, first, scale, there & (pairs < HALF))
    _store_part(at + HALF + pairs, second, scale, there & (pairs < HALF))
    _store_part(at + rest, other, scale, there & (rest < DIM))


@triton.jit
def _store_part(at, x, scale, mask):
    if at.dtype.element_ty.is_fp8():
        x = tl.clamp(x / scale, -448.0, 448.0)
    tl.store(at, x.to(at.dtype.element_ty), mask=mask)
