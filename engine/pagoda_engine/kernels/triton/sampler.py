"""The next token of every row without a sort, in two kernels: greedy, or drawn after temperature, top-k, top-p, min-p.

All filters are thresholds. A token's distance is (largest logit - logit) / temperature, its weight exp(-distance), so
the k likeliest, or the likeliest that come to p, are the tokens up to some distance; it is found by bisection between
distances that occur, which ends as soon as one is left between the bounds. The draw inverts the cumulative weights, in
the vocabulary's order, at a number in [0, 1) that comes with the row: the torch sampler's draw, up to rounding.
"""

from __future__ import annotations

# ruff: noqa: ANN001, ANN202, N803 - what a kernel takes is typed by Triton, and its constants are in capitals
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHUNK: Final = 4096
"""Logits that a program reads at once."""


@dataclass(frozen=True, slots=True)
class Draws:
    """How each row wants its token, [rows] each: float32 `temperature` (0 is greedy), int32 `top_k` (0 is off),

    float32 `top_p` (1 is off), float32 `min_p` (0 is off), float64 `uniform`, in [0, 1).
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniform: Tensor


def sample(logits: Tensor, draws: Draws, tokens: Tensor) -> None:
    """Write the next token of each row of contiguous logits [rows, vocabulary] to `tokens`, int64 [rows].

    It is -1 where the largest logit isn't finite. Equally likely tokens are kept or cut off together.
    """
    rows, vocabulary = logits.shape
    chunks = triton.cdiv(vocabulary, _CHUNK)
    chunk = min(_CHUNK, triton.next_power_of_2(vocabulary))
    if not rows:
        return
    extremes = torch.empty(rows, chunks, 2, dtype=torch.float32, device=logits.device)
    best = torch.empty(rows, chunks, dtype=torch.int32, device=logits.device)
    sizes = {"VOCABULARY": vocabulary, "CHUNKS": chunks, "CHUNK": chunk}
    _survey[(rows, chunks)](logits, extremes, best, **sizes, num_warps=4, enable_fp_fusion=True)
    _choose[(rows,)](
        logits,
        extremes,
        best,
        draws.temperature,
        draws.top_k,
        draws.top_p,
        draws.min_p,
        draws.uniform,
        tokens,
        **sizes,
        CHUNKS_BLOCK=triton.next_power_of_2(chunks),
        num_warps=8,
        enable_fp_fusion=True,
    )


@triton.jit
def _survey(logits, extremes, best, VOCABULARY: tl.constexpr, CHUNKS: tl.constexpr, CHUNK: tl.constexpr):
    """Largest and smallest finite logit of a chunk, and where the largest is; NaN and infinity give infinity."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = chunk * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits + row * VOCABULARY + columns, mask=columns < VOCABULARY, other=float("-inf")).to(tl.float32)
    x = tl.where(x != x, float("inf"), x)
    largest = tl.max(x, 0)
    at = row * CHUNKS + chunk
    tl.store(extremes + 2 * at, largest)
    tl.store(extremes + 2 * at + 1, tl.min(tl.where(x == float("-inf"), float("inf"), x), 0))
    tl.store(best + at, tl.min(tl.where(x == largest, columns, VOCABULARY), 0))


@triton.jit
def _choose(
    logits,
    extremes,
    best,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    uniforms,
    tokens,
    VOCABULARY: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS_BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    chunks = tl.arange(0, CHUNKS_BLOCK)
    at, there = row * CHUNKS + chunks, chunks < CHUNKS
    largest = tl.load(extremes + 2 * at, mask=there, other=float("-inf"))
    top = tl.max(largest, 0)
    bottom = tl.min(tl.load(extremes + 2 * at + 1, mask=there, other=float("inf")), 0)
    first = tl.load(best + at, mask=there, other=VOCABULARY)
    token = tl.min(tl.where(largest == top, first, VOCABULARY), 0).to(tl.int64)
    finite = (top < float("inf")) & (top > float("-inf"))
    temperature = tl.load(temperatures + row)
    if finite & (temperature > 0):
        temperature = tl.maximum(temperature, 1e-30)
        inverse = 1.0 / temperature
        reach = 3e38 * tl.minimum(temperature, 1.0)
        x = logits + row * VOCABULARY
        # A little more than the largest distance, which may have been rounded another way.
        limit = tl.minimum(top - bottom, reach) * inverse * 1.001
        top_k = tl.load(top_ks + row)
        if (top_k > 0) & (top_k < VOCABULARY):
            limit = _cut(x, top, inverse, reach, limit, top_k.to(tl.float64), True, VOCABULARY, CHUNK)
        top_p = tl.load(top_ps + row)
        if top_p < 1:
            total = _weight(x, top, inverse, reach, limit, VOCABULARY, CHUNK)
            limit = _cut(x, top, inverse, reach, limit, top_p.to(tl.float64) * total, False, VOCABULARY, CHUNK)
        floor = tl.load(min_ps + row)
        token = _draw(x, top, inverse, reach, limit, floor, tl.load(uniforms + row), token, VOCABULARY, CHUNK)
    tl.store(tokens + row, tl.where(finite, token, -1))


@triton.jit
def _distances(x, top, inverse, reach, start, VOCABULARY: tl.constexpr, CHUNK: tl.constexpr):
    """How far below the likeliest token a chunk's tokens are, at most 3e38: then they have no weight."""
    columns = start + tl.arange(0, CHUNK)
    logits = tl.load(x + columns, mask=columns < VOCABULARY, other=float("-inf")).to(tl.float32)
    return tl.minimum(top - logits, reach) * inverse


@triton.jit
def _weight(x, top, inverse, reach, limit, VOCABULARY: tl.constexpr, CHUNK: tl.constexpr):
    """The weight of all tokens up to a distance."""
    found = tl.zeros([CHUNK], tl.float64)
    for start in range(0, VOCABULARY, CHUNK):
        distance = _distances(x, top, inverse, reach, start, VOCABULARY, CHUNK)
        found += tl.where(distance <= limit, tl.exp(-distance), 0.0).to(tl.float64)
    return tl.sum(found, 0)


@triton.jit
def _cut(x, top, inverse, reach, limit, wanted, COUNT: tl.constexpr, VOCABULARY: tl.constexpr, CHUNK: tl.constexpr):
    """The least distance up to which there are `wanted` tokens, or weight; `limit` if there are fewer up to it."""
    low, high = limit * 0.0 - 1.0, limit
    looking = True
    while looking:
        middle = low + (high - low) * 0.5
        found = tl.zeros([CHUNK], tl.float64)
        below = tl.full([CHUNK], -1.0, tl.float32)
        above = tl.full([CHUNK], float("inf"), tl.float32)
        for start in range(0, VOCABULARY, CHUNK):
            distance = _distances(x, top, inverse, reach, start, VOCABULARY, CHUNK)
            inside = distance <= middle
            if COUNT:
                found += inside.to(tl.float64)
            else:
                found += tl.where(inside, tl.exp(-distance), 0.0).to(tl.float64)
            below = tl.maximum(below, tl.where(inside, distance, -1.0))
            above = tl.minimum(above, tl.where(inside, float("inf"), distance))
        if tl.sum(found, 0) >= wanted:
            # The bound moves to a distance that occurs. Where no number is left between the bounds, it is the answer.
            looking = middle < high
            high = tl.max(below, 0)
        else:
            low = middle
            looking = tl.min(above, 0) < high
    return high


@triton.jit
def _draw(x, top, inverse, reach, limit, floor, uniform, fallback, VOCABULARY: tl.constexpr, CHUNK: tl.constexpr):
    """The first token whose cumulative weight is above `uniform` of the total."""
    total = tl.zeros([CHUNK], tl.float64)
    for start in range(0, VOCABULARY, CHUNK):
        distance = _distances(x, top, inverse, reach, start, VOCABULARY, CHUNK)
        weight = tl.exp(-distance)
        total += tl.where((distance <= limit) & (weight >= floor), weight, 0.0).to(tl.float64)
    target = tl.sum(total, 0) * uniform
    before = target * 0.0
    token = fallback * 0 + VOCABULARY
    for start in range(0, VOCABULARY, CHUNK):
        if token == VOCABULARY:
            distance = _distances(x, top, inverse, reach, start, VOCABULARY, CHUNK)
            weight = tl.exp(-distance)
            weight = tl.where((distance <= limit) & (weight >= floor), weight, 0.0).to(tl.float64)
            after = before + tl.sum(weight, 0)
            if after > target:
                passed = (before + tl.cumsum(weight, 0) > target) & (weight > 0)
                columns = start + tl.arange(0, CHUNK)
                token = tl.min(tl.where(passed, columns, VOCABULARY), 0).to(tl.int64)
            before = after
    # Sums in another order may leave the last bit of the total unreached: the likeliest token then.
    return tl.where(token == VOCABULARY, fallback, token)
