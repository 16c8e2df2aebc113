"""RMSNorm of float32 rows into elements."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
import math
from typing import Any

import numpy as np

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import LANES, put, store_lanes
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

_ROWS_A_PIECE = 4


@kernel
def narrow(source: Any, source_at: int, target: Any, target_at: int, count: int) -> None:
    """Float32 to elements, rounded to nearest even."""
    whole = count - count % LANES
    for j in range(0, whole, LANES):
        store_lanes(target, target_at + j, source, source_at + j)
    for j in range(whole, count):
        put(target, target_at + j, source[source_at + j])


@kernel
def scale_of(row: Any, eps: float) -> float:
    """What RMSNorm multiplies a row with, before its weight."""
    total = np.float32(0)
    for j in range(len(row)):
        total += row[j] * row[j]
    return np.float32(1 / math.sqrt(total / np.float32(len(row)) + np.float32(eps)))


@kernel
def rms_norm(
    words: Shared,
    phase: int,
    x: Any,
    x_stride: int,
    rows: Any,
    tokens: int,
    size: int,
    weight: Any,
    weight_at: int,
    eps: float,
    scratch: Any,
    scratch_at: int,
    y: Any,
    y_stride: int,
) -> int:
    """`y[i] = norm(x[rows[i]])` for `tokens` rows of `size` floats, shared among the threads.

    `scratch` holds `size` floats of this thread's own, from `scratch_at`; weight: float32, from `weight_at`.
    """
    pieces = (tokens + _ROWS_A_PIECE - 1) // _ROWS_A_PIECE
    own, weights = scratch[scratch_at : scratch_at + size], weight[weight_at : weight_at + size]
    piece = take(words, phase)
    while piece < pieces:
        for i in range(piece * _ROWS_A_PIECE, min(tokens, (piece + 1) * _ROWS_A_PIECE)):
            at = rows[i] * x_stride
            row = x[at : at + size]
            scale = scale_of(row, eps)
            for j in range(size):
                own[j] = row[j] * scale * weights[j]
            narrow(scratch, scratch_at, y, i * y_stride, size)
        piece = take_next(words, phase)
    return finish(words, phase, pieces)
