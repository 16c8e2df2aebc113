"""The arrays that a fused decoder works in, all made at the start: the paged cache, activations, scratch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda_engine.kernels.cpu import attention
from pagoda_engine.kernels.cpu.lanes import LANES
from pagoda_engine.kernels.cpu.rotary import BLOCK
from pagoda_engine.kernels.cpu.step import MLP_TOKENS, Batch, Buffers, Shape


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one step may bring: tokens, sequences, tokens of one sequence, prompt tokens that are scored; and
    the blocks there are."""

    tokens: int
    sequences: int
    context: int
    scored: int
    blocks: int

    @property
    def logits(self) -> int:
        """Tokens of one step whose logits are wanted, at most."""
        return min(self.tokens, self.sequences + self.scored)


def value_dim(dim: int) -> int:
    """Features of a value in the cache: whole panels."""
    return -(-dim // LANES) * LANES


def cache_places(shape: Shape) -> list[tuple[int, int]]:
    """Where each layer's keys and values start in a block of the cache, in elements."""
    keys = BLOCK * shape.kv_heads * shape.dim
    both = keys + BLOCK * shape.kv_heads * value_dim(shape.dim)
    return [(layer * both, layer * both + keys) for layer in range(shape.layers)]


def block_size(shape: Shape) -> int:
    """Elements of a block of the cache."""
    return BLOCK * shape.kv_heads * (shape.dim + value_dim(shape.dim)) * shape.layers


def make_buffers(shape: Shape, limits: Limits, threads: int) -> Buffers:
    """The system gives the memory as it is first written: what a service never uses it never pays for."""
    element = np.uint16 if shape.pair == 2 else np.float32
    rows, mlp_rows, sampled = (_rows(n) for n in (limits.tokens, min(limits.tokens, MLP_TOKENS), limits.logits))
    qkv = (shape.heads + 2 * shape.kv_heads) * shape.dim
    hidden, attended, gate_up, inner, logits = (
        _stride(n) for n in (shape.hidden, shape.heads * shape.dim, 2 * shape.inner, shape.inner, shape.vocabulary)
    )
    span = _stride(limits.context)
    return Buffers(
        cache=np.zeros(limits.blocks * block_size(shape), element),
        hidden=np.zeros(rows * hidden, np.float32),
        normed=np.zeros(max(rows, sampled) * hidden, element),
        qkv=np.zeros(rows * _stride(qkv), np.float32),
        attended=np.zeros(rows * attended, element),
        gate_up=np.zeros(mlp_rows * gate_up, np.float32),
        activated=np.zeros(mlp_rows * inner, element),
        logits=np.zeros(sampled * logits, np.float32),
        best=np.zeros(sampled, np.int64),
        best_values=np.zeros(sampled, np.float32),
        scratch=np.zeros(threads * max(hidden, 512), np.float32),
        queries=np.zeros(threads * attention.ROWS * _stride(shape.dim), element),
        scores=np.zeros(threads * attention.ROWS * span, np.float32),
        chances=np.zeros(threads * attention.ROWS * span, element),
        sums=np.zeros(threads * attention.ROWS * value_dim(shape.dim), np.float32),
        block_size=block_size(shape),
        hidden_stride=hidden,
        normed_stride=hidden,
        qkv_stride=_stride(qkv),
        attended_stride=attended,
        gate_up_stride=gate_up,
        activated_stride=inner,
        logits_stride=logits,
        scratch_stride=max(hidden, 512),
        span=span,
    )


def make_batch(shape: Shape, limits: Limits) -> Batch:
    """Arrays for the largest step."""
    group = shape.heads // shape.kv_heads
    width = -(-limits.context // BLOCK) + 1
    tiles = limits.tokens * group // attention.ROWS + limits.sequences * (group // attention.ROWS + 1)

    def integers(*size: int) -> np.ndarray:
        return np.zeros(size, np.int64)

    return Batch(
        counts=integers(3),
        ids=integers(limits.tokens),
        positions=integers(limits.tokens),
        slots=integers(limits.tokens),
        lasts=integers(limits.tokens),
        starts=integers(limits.sequences + 1),
        contexts=integers(limits.sequences),
        tables=np.zeros(limits.sequences * width, np.int32),
        table_width=width,
        tiles=integers(tiles, 2),
        sampled=integers(limits.logits),
        every=np.arange(_rows(limits.tokens), dtype=np.int64),
    )


def _rows(count: int) -> int:
    """Tiles read and write whole groups of eight rows."""
    return -(-count // 8) * 8


def _stride(count: int) -> int:
    """Elements between two rows: whole cache lines, and one more, so that rows do not share their cache sets."""
    return -(-count // 32) * 32 + 32
