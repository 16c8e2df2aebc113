"""Between projection and attention: norms of queries and keys, rotary embedding, and keys and values to the cache.

A block of the cache holds sixteen tokens of all layers, so that a service touches no more memory than its tokens need.
Of a layer it has the keys, [KV head, dim, 16] of float32 or [KV head, dim / 2, 16, 2] of bfloat16, a token in each
lane, and the values in panels of sixteen features, [KV head, panels, 16 tokens, 16] or [KV head, panels, 8 token pairs,
16, 2]; features are padded to whole panels.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Any

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import LANES, put
from pagoda_engine.kernels.cpu.norm import scale_of
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

BLOCK = LANES


@kernel
def prepare_head(x, at, dim, norm, norm_at, eps, cos, sin, angle_at, half):  # noqa: ANN001, ANN201
    """Norm (where `norm_at` is not negative) and rotary embedding (`half` pairs, may be 0) of one head, in place."""
    head = x[at : at + dim]
    if norm_at >= 0:
        weight = norm[norm_at : norm_at + dim]
        scale = scale_of(head, eps)
        for d in range(dim):
            head[d] = head[d] * scale * weight[d]
    firsts, seconds = head[:half], head[half : 2 * half]
    cosines, sines = cos[angle_at : angle_at + half], sin[angle_at : angle_at + half]
    for d in range(half):
        first, second = firsts[d], seconds[d]
        firsts[d] = first * cosines[d] - second * sines[d]
        seconds[d] = second * cosines[d] + first * sines[d]


@kernel
def write_kv(x, key_at, value_at, dim, pair, cache, block_at, value_block_at, slot):  # noqa: ANN001, ANN201
    """One token's key and value of one head to slot `slot` of the blocks that start at these elements."""
    for d in range(dim):
        put(cache, block_at + ((d // pair) * BLOCK + slot) * pair + d % pair, x[key_at + d])
    for d in range(dim):
        at = ((d // LANES) * (BLOCK // pair) + slot // pair) * LANES + d % LANES
        put(cache, value_block_at + at * pair + slot % pair, x[value_at + d])


@kernel
def clear_values(cache, value_block_at, dim, pair, first_slot):  # noqa: ANN001, ANN201
    """Zero the slots from `first_slot`: what an earlier owner left, NaN even, would pass through a probability of 0."""
    for slot in range(first_slot, BLOCK):
        for d in range(dim):
            at = ((d // LANES) * (BLOCK // pair) + slot // pair) * LANES + d % LANES
            cache[value_block_at + at * pair + slot % pair] = 0


@kernel
def prepare(
    words: Shared,
    phase: int,
    x: Any,
    x_stride: int,
    tokens: int,
    heads: int,
    kv_heads: int,
    dim: int,
    pair: int,
    norms: Any,
    query_norm: int,
    key_norm: int,
    eps: float,
    cos: Any,
    sin: Any,
    half: int,
    angles: int,
    positions: Any,
    slots: Any,
    lasts: Any,
    cache: Any,
    block_size: int,
    keys_at: int,
    values_at: int,
) -> int:
    """All heads of all tokens, shared among the threads. x: float32 [tokens, queries | keys | values], in place.

    `cos` and `sin` have rows of `angles` numbers, of which the first `half` are used; `slots[i]` is the block times
    sixteen plus the offset of token i; `lasts[i]` is not 0 where token i is the last of a block that this step began. A
    block of the cache has `block_size` elements, of which this layer's keys and values start at these places.
    """
    panels = (dim + LANES - 1) // LANES
    all_heads = heads + kv_heads
    piece = take(words, phase)
    while piece < tokens * kv_heads:
        token, head = piece // kv_heads, piece % kv_heads
        row = token * x_stride
        angle_at = positions[token] * angles
        group = heads // kv_heads
        for h in range(head * group, (head + 1) * group):
            prepare_head(x, row + h * dim, dim, norms, query_norm, eps, cos, sin, angle_at, half)
        key_at = row + (heads + head) * dim
        prepare_head(x, key_at, dim, norms, key_norm, eps, cos, sin, angle_at, half)
        block, slot = slots[token] // BLOCK, slots[token] % BLOCK
        key_block = block * block_size + keys_at + head * dim * BLOCK
        value_block = block * block_size + values_at + head * panels * LANES * BLOCK
        write_kv(x, key_at, row + (all_heads + head) * dim, dim, pair, cache, key_block, value_block, slot)
        if lasts[token]:
            clear_values(cache, value_block, dim, pair, slot + 1)
        piece = take_next(words, phase)
    return finish(words, phase, tokens * kv_heads)
