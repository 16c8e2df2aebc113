"""Paged attention equals the plain one over a grid of shapes, with scattered blocks and foreign NaN in the cache."""

import numpy as np
import pytest
import torch

from pagoda_engine.kernels import plain
from pagoda_engine.kernels.cpu.attention import ROWS, attention
from pagoda_engine.kernels.cpu.linear import elements
from pagoda_engine.kernels.cpu.rotary import prepare
from pagoda_engine.kernels.cpu.work import shared

SHAPES = [(1, 1, 64), (9, 3, 64), (8, 8, 80), (12, 2, 96), (14, 2, 64), (32, 8, 128), (5, 1, 8), (4, 2, 256)]


def run(queries, keys, values, cached, contexts, *, scale, window, dtype):
    """Two steps over one cache: the first `cached` tokens of each sequence, then the rest; outputs of the second."""
    heads, kv_heads, dim = queries[0].shape[1], keys[0].shape[1], queries[0].shape[2]
    padded, width = -(-dim // 16) * 16, max(-(-context // 16) for context in contexts)
    blocks = len(contexts) * width + 3
    order = np.random.default_rng(0).permutation(blocks).astype(np.int32)
    tables = order[: len(contexts) * width]
    values_at = 16 * kv_heads * dim + 64  # after the keys, and some elements of others
    block_size = values_at + 16 * kv_heads * padded
    cache = elements(torch.full((blocks * block_size,), float("nan"), dtype=dtype))
    norms, angles = np.zeros(1, np.float32), np.zeros(1, np.float32)
    group, span = heads // kv_heads, -(-width * 16 // 32) * 32 + 32

    def step(firsts, lasts):
        rows = [
            torch.cat([part[first:last].flatten(1) for part in (q, k, v)], 1)
            for q, k, v, first, last in zip(queries, keys, values, firsts, lasts, strict=True)
        ]
        x = torch.cat(rows).contiguous()
        counts = [last - first for first, last in zip(firsts, lasts, strict=True)]
        positions = np.concatenate([np.arange(f, t) for f, t in zip(firsts, lasts, strict=True)])
        owner = np.repeat(np.arange(len(counts)), counts)
        slots = tables[owner * width + positions // 16].astype(np.int64) * 16 + positions % 16
        began = np.array(
            [t == lasts[o] - 1 and firsts[o] <= t // 16 * 16 for o, t in zip(owner, positions, strict=True)]
        )
        pair = 2 if dtype == torch.bfloat16 else 1
        prepare(
            shared(1), 0, elements(x), x.shape[1], len(x), heads, kv_heads, dim, pair, norms, -1, -1, np.float32(0),
            angles, angles, 0, 0, positions, slots, began.astype(np.int64), cache, block_size, 0, values_at,
        )  # fmt: skip
        tiles = np.array([(i, r) for i, n in enumerate(counts) for r in range(0, n * group, ROWS)], dtype=np.int64)
        y = torch.zeros(len(x), heads * dim, dtype=dtype)
        scratch = torch.zeros(ROWS * max(span, 2 * padded), dtype=dtype)
        attention(
            shared(1), 0, elements(x), x.shape[1], heads, kv_heads, dim, np.float32(scale), window or 0, tiles,
            len(tiles), np.cumsum([0, *counts]), np.array(lasts), tables, width, cache, block_size, 0, values_at,
            elements(scratch.clone()), np.zeros(ROWS * span, np.float32), elements(scratch),
            np.zeros(ROWS * padded, np.float32), 0, span, elements(y), heads * dim,
        )  # fmt: skip
        return y.float().view(-1, heads, dim).split(counts)

    step([0] * len(cached), cached)
    return step(cached, contexts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 21])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), SHAPES)
def test_attention_equals_the_plain_one(heads, kv_heads, dim, window, dtype):
    generator = torch.Generator().manual_seed(dim)
    contexts, cached = [2, 16, 33, 48, 100], [1, 15, 32, 17, 35]

    def random(count):
        return [torch.randn(context, count, dim, generator=generator).to(dtype).float() for context in contexts]

    queries, keys, values = random(heads), random(kv_heads), random(kv_heads)
    scale = dim**-0.5
    found = run(queries, keys, values, cached, contexts, scale=scale, window=window, dtype=dtype)
    # bfloat16 rounds each probability and the output, by at most 2^-8 of it; the inputs are bfloat16 already.
    rounding = 0.0 if dtype == torch.float32 else 2**-8
    for q, k, v, first, output in zip(queries, keys, values, cached, found, strict=True):
        wanted = plain.attention(q[first:], k, v, scale, window)
        torch.testing.assert_close(output, wanted, rtol=rounding + 2e-5, atol=rounding * v.abs().max().item() + 2e-5)
