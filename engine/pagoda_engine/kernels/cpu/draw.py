"""Tokens drawn from rows of logits, without a sort: temperature, top-k, top-p, min-p.

A weight is exp((logit - largest logit) / temperature), and every filter keeps the weights from some floor on. The floor
of top-k and top-p lies in one binade, the weights between two powers of two: which one, a table of all binades tells,
and only its weights are put in order.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Any, Final, NamedTuple

import numpy as np

from pagoda_engine.kernels.cpu.jit import kernel, loose_kernel
from pagoda_engine.kernels.cpu.swiglu import exp
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

_BINADES: Final = 129  # of weights from 2^-126 to a little above 1, by their exponents
_MANTISSA: Final = 23  # bits
_LOWEST: Final = np.float32(-1e25)  # a logit below has no weight, whatever the temperature


class Draws(NamedTuple):
    """Which rows are drawn from, and how: `rows` (int64), and for each of them `temperatures` (float32, above 0),
    `top_ks` (int64, 0 is off), `top_ps` (float64, 1 is off), `min_ps` (float32, 0 is off), `uniforms` (float64, in
    [0, 1))."""

    rows: Any
    temperatures: Any
    top_ks: Any
    top_ps: Any
    min_ps: Any
    uniforms: Any


@loose_kernel
def _weigh(logits: Any, peak: Any, scale: Any, weights: Any) -> None:
    for j in range(len(weights)):
        weights[j] = exp((max(logits[j], _LOWEST) - peak) * scale)


@kernel
def _total(weights: Any, floor: Any) -> Any:
    total = 0.0
    for j in range(len(weights)):
        total += np.float64(weights[j] if weights[j] >= floor else np.float32(0))
    return total


@kernel
def _cut(weights: Any, floor: Any, wanted: Any, by_weight: Any) -> Any:
    """The largest weight down to which there are `wanted` weights, or so much weight; `floor` where there is less."""
    bits = weights.view(np.int32)
    sums, numbers = np.zeros(_BINADES), np.zeros(_BINADES, np.int64)
    for j in range(len(weights)):
        if weights[j] >= floor:
            binade = bits[j] >> _MANTISSA
            sums[binade] += np.float64(weights[j])
            numbers[binade] += 1
    reached, binade = 0.0, _BINADES - 1
    while binade >= 0:
        there = sums[binade] if by_weight else np.float64(numbers[binade])
        if reached + there >= wanted:
            break
        reached += there
        binade -= 1
    if binade < 0:
        return floor
    some = np.empty(numbers[binade], np.float32)
    found = 0
    for j in range(len(weights)):
        if weights[j] >= floor and bits[j] >> _MANTISSA == binade:
            some[found] = weights[j]
            found += 1
    some.sort()
    for k in range(found - 1, -1, -1):
        reached += np.float64(some[k]) if by_weight else 1.0
        if reached >= wanted:
            return some[k]
    return some[0]


@kernel
def _token(weights: Any, floor: Any, target: Any) -> int:
    """The first token by which the weights from `floor` on come to more than `target`, or the last such token."""
    reached, token = 0.0, 0
    for j in range(len(weights)):
        if weights[j] >= floor:
            reached += np.float64(weights[j])
            token = j
            if reached > target:
                break
    return token


@kernel
def draw(
    words: Shared,
    phase: int,
    draws: Draws,
    logits: Any,
    stride: int,
    vocabulary: int,
    peaks: Any,
    weights: Any,
    weights_at: int,
    tokens: Any,
) -> int:
    """`tokens[i]` (int64), drawn from the row `draws.rows[i]` of logits. Shared among the threads.

    `peaks`, by row, are the largest logits, which must be finite. `weights`: float32, as many as there are tokens, of
    the thread's own, from `weights_at`. Tokens that are equally likely stay or go together; the draw inverts the sums
    of weights, in the vocabulary's order, at the uniform number.
    """
    count = len(draws.rows)
    own = weights[weights_at : weights_at + vocabulary]
    i = take(words, phase)
    while i < count:
        row, top_k, top_p = draws.rows[i], draws.top_ks[i], draws.top_ps[i]
        scale = np.float32(1) / max(draws.temperatures[i], np.float32(1e-12))
        _weigh(logits[row * stride : row * stride + vocabulary], peaks[row], scale, own)
        peak = exp(np.float32(0))
        floor = np.float32(1e-38)
        if 0 < top_k < vocabulary:
            floor = _cut(own, floor, np.float64(top_k), False)
        if top_p < 1:
            wanted = top_p * _total(own, floor)
            floor = _cut(own, floor, wanted, True)
        floor = max(floor, min(draws.min_ps[i], np.float32(1)) * peak)
        target = draws.uniforms[i] * _total(own, floor)
        tokens[i] = _token(own, floor, target)
        i = take_next(words, phase)
    return finish(words, phase, count)
