"""A step of a decoder of the common shape, from token ids to logits, as one function that all threads run together.

The arrays come in four named tuples: what the model is (`Shape`), its weights, the team's buffers, and the step's
batch. Layers have the same shape; what may differ between them (windows, rotary or not, norms, biases) is in tables.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from pagoda_engine.kernels.cpu.attention import attention
from pagoda_engine.kernels.cpu.embedding import embed
from pagoda_engine.kernels.cpu.greedy import greedy
from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.linear import linear
from pagoda_engine.kernels.cpu.norm import rms_norm
from pagoda_engine.kernels.cpu.rotary import prepare
from pagoda_engine.kernels.cpu.swiglu import swiglu
from pagoda_engine.kernels.cpu.work import Shared


class Place(IntEnum):
    """Columns of `Weights.places`: where a layer's parts start in their arrays; it has none where that is negative."""

    QKV = 0
    OUTPUT = 1
    GATE_UP = 2
    DOWN = 3
    QKV_BIAS = 4
    OUTPUT_BIAS = 5
    GATE_UP_BIAS = 6
    DOWN_BIAS = 7
    ATTENTION_NORM = 8
    MLP_NORM = 9
    QUERY_NORM = 10
    KEY_NORM = 11
    WINDOW = 12  # tokens, 0 for none
    ROTATED = 13  # pairs of features that the rotary embedding turns, 0 for none
    KEYS = 14
    VALUES = 15


class Number(IntEnum):
    """Columns of `Weights.numbers`."""

    ATTENTION_EPS = 0
    MLP_EPS = 1
    HEAD_EPS = 2
    SCALE = 3


class Shape(NamedTuple):
    """The sizes that all layers share. `pair` is 2 for bfloat16 and 1 for float32."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    dim: int
    inner: int
    vocabulary: int
    pair: int


class Weights(NamedTuple):
    """All parameters, each kind in one array.

    `matrices`: packed elements; `vectors`: norms and biases, float32; `places`: int64 [layers + 1, Place], whose last
    row is the model's own: QKV the output layer, QKV_BIAS its bias, OUTPUT the embedding (the same if tied),
    ATTENTION_NORM the last norm; `numbers`: float32 [layers + 1, Number]; `cos`, `sin`: float32 [positions, angles],
    flat.
    """

    matrices: Any
    vectors: Any
    places: Any
    numbers: Any
    cos: Any
    sin: Any
    angles: int


class Buffers(NamedTuple):
    """Scratch and results of one team, for every step. Rows are `*_stride` apart; `scratch` is for each thread."""

    cache: Any  # elements: the paged cache of all layers, block after block
    hidden: Any  # float32: the residual stream
    normed: Any  # elements
    qkv: Any  # float32
    attended: Any  # elements
    gate_up: Any  # float32, MLP_TOKENS rows
    activated: Any  # elements, MLP_TOKENS rows
    logits: Any  # float32
    best: Any  # int64
    best_values: Any  # float32
    scratch: Any  # float32 [threads, scratch_stride]
    queries: Any
    scores: Any
    chances: Any
    sums: Any
    block_size: int
    hidden_stride: int
    normed_stride: int
    qkv_stride: int
    attended_stride: int
    gate_up_stride: int
    activated_stride: int
    logits_stride: int
    scratch_stride: int
    span: int


class Batch(NamedTuple):
    """A step's tokens. `counts`: int64 [tokens, tiles, sampled rows]; the others as in `prepare` and `attention`."""

    counts: Any
    ids: Any
    positions: Any
    slots: Any
    lasts: Any
    starts: Any
    contexts: Any
    tables: Any
    table_width: int
    tiles: Any
    sampled: Any
    every: Any  # 0, 1, 2, ...


KERNELS: Final = 25
"""How many kernels a step, its team and the draw of tokens are made of: so many are compiled before the first step."""

MLP_TOKENS: Final = 256
"""Tokens that the MLP computes at a time: its inner activations stay in the cache and its buffers small."""


def phases(shape: Shape, tokens: int) -> int:
    """Phases of a step of so many tokens."""
    return 4 + shape.layers * (5 + 4 * -(-tokens // MLP_TOKENS))


_QKV, _OUTPUT, _GATE_UP, _DOWN = (int(p) for p in (Place.QKV, Place.OUTPUT, Place.GATE_UP, Place.DOWN))
_QKV_BIAS, _OUTPUT_BIAS = int(Place.QKV_BIAS), int(Place.OUTPUT_BIAS)
_GATE_UP_BIAS, _DOWN_BIAS = int(Place.GATE_UP_BIAS), int(Place.DOWN_BIAS)
_ATTENTION_NORM, _MLP_NORM = int(Place.ATTENTION_NORM), int(Place.MLP_NORM)
_QUERY_NORM, _KEY_NORM = int(Place.QUERY_NORM), int(Place.KEY_NORM)
_WINDOW, _ROTATED, _KEYS, _VALUES = (int(p) for p in (Place.WINDOW, Place.ROTATED, Place.KEYS, Place.VALUES))
_ATTENTION_EPS, _MLP_EPS = int(Number.ATTENTION_EPS), int(Number.MLP_EPS)
_HEAD_EPS, _SCALE = int(Number.HEAD_EPS), int(Number.SCALE)


@kernel
def forward(thread: int, words: Shared, shape: Shape, weights: Weights, buffers: Buffers, batch: Batch) -> None:
    """Compute the batch: keys and values go to the cache, logits of the sampled rows and their best tokens to buffers.

    One function, so that the kernels in it are compiled into it once. Constants in calls are given a type, because
    Numba makes a kernel anew for each literal.
    """
    w, b = weights, buffers
    first_phase: Any = np.int64(0)
    no: Any = np.bool_(False)
    yes: Any = np.bool_(True)
    tokens, rows, scratch_at = batch.counts[0], batch.counts[2], thread * b.scratch_stride
    heads_out = (shape.heads + 2 * shape.kv_heads) * shape.dim
    place, number = w.places[shape.layers], w.numbers[shape.layers]
    phase = embed(words, first_phase, batch.ids, tokens, w.matrices, place[_OUTPUT], place[_OUTPUT] == place[_QKV],
                  shape.hidden, shape.pair, b.hidden, b.hidden_stride)  # fmt: skip
    for layer in range(shape.layers):
        place, number = w.places[layer], w.numbers[layer]
        phase = rms_norm(words, phase, b.hidden, b.hidden_stride, batch.every, tokens, shape.hidden, w.vectors,
                         place[_ATTENTION_NORM], number[_ATTENTION_EPS], b.scratch, scratch_at, b.normed,
                         b.normed_stride)  # fmt: skip
        phase = linear(words, phase, b.normed, b.normed_stride, tokens, w.matrices, place[_QKV], shape.hidden,
                       heads_out, w.vectors, place[_QKV_BIAS], no, b.qkv, b.qkv_stride)  # fmt: skip
        phase = prepare(words, phase, b.qkv, b.qkv_stride, tokens, shape.heads, shape.kv_heads, shape.dim, shape.pair,
                        w.vectors, place[_QUERY_NORM], place[_KEY_NORM], number[_HEAD_EPS], w.cos, w.sin,
                        place[_ROTATED], w.angles, batch.positions, batch.slots, batch.lasts, b.cache,
                        b.block_size, place[_KEYS], place[_VALUES])  # fmt: skip
        phase = attention(words, phase, b.qkv, b.qkv_stride, shape.heads, shape.kv_heads, shape.dim, number[_SCALE],
                          place[_WINDOW], batch.tiles, batch.counts[1], batch.starts, batch.contexts, batch.tables,
                          batch.table_width, b.cache, b.block_size, place[_KEYS], place[_VALUES], b.queries,
                          b.scores, b.chances, b.sums, thread, b.span, b.attended, b.attended_stride)  # fmt: skip
        phase = linear(words, phase, b.attended, b.attended_stride, tokens, w.matrices, place[_OUTPUT],
                       shape.heads * shape.dim, shape.hidden, w.vectors, place[_OUTPUT_BIAS], yes, b.hidden,
                       b.hidden_stride)  # fmt: skip
        for first in range(0, tokens, MLP_TOKENS):
            count = min(MLP_TOKENS, tokens - first)
            phase = rms_norm(words, phase, b.hidden, b.hidden_stride, batch.every[first:], count, shape.hidden,
                             w.vectors, place[_MLP_NORM], number[_MLP_EPS], b.scratch, scratch_at, b.normed,
                             b.normed_stride)  # fmt: skip
            phase = linear(words, phase, b.normed, b.normed_stride, count, w.matrices, place[_GATE_UP], shape.hidden,
                           2 * shape.inner, w.vectors, place[_GATE_UP_BIAS], no, b.gate_up,
                           b.gate_up_stride)  # fmt: skip
            phase = swiglu(words, phase, b.gate_up, b.gate_up_stride, count, shape.inner, b.scratch, scratch_at,
                           b.activated, b.activated_stride)  # fmt: skip
            phase = linear(words, phase, b.activated, b.activated_stride, count, w.matrices, place[_DOWN], shape.inner,
                           shape.hidden, w.vectors, place[_DOWN_BIAS], yes, b.hidden[first * b.hidden_stride :],
                           b.hidden_stride)  # fmt: skip
    place, number = w.places[shape.layers], w.numbers[shape.layers]
    phase = rms_norm(words, phase, b.hidden, b.hidden_stride, batch.sampled, rows, shape.hidden, w.vectors,
                     place[_ATTENTION_NORM], number[_ATTENTION_EPS], b.scratch, scratch_at, b.normed,
                     b.normed_stride)  # fmt: skip
    phase = linear(words, phase, b.normed, b.normed_stride, rows, w.matrices, place[_QKV], shape.hidden,
                   shape.vocabulary, w.vectors, place[_QKV_BIAS], no, b.logits, b.logits_stride)  # fmt: skip
    greedy(words, phase, b.logits, b.logits_stride, rows, shape.vocabulary, b.best, b.best_values)
