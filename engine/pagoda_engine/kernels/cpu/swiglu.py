"""SiLU(gate) * up of float32 rows into elements."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
import math
from typing import Any

import numba
import numpy as np

from pagoda_engine.kernels.cpu.jit import loose_kernel
from pagoda_engine.kernels.cpu.lanes import float_of_bits
from pagoda_engine.kernels.cpu.norm import narrow
from pagoda_engine.kernels.cpu.softmax import POWER_OF_2
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

_PIECE = 256  # features


@numba.njit(inline="always")
def exp(x):  # noqa: ANN001, ANN201
    """e^x without branches, so that loops over it are vectorised. The relative error is below 1e-7 * (1 + |x|).

    Never infinite: it stops at 2^127. 0 below 2^-126."""
    y = min(max(x * np.float32(1.4426950408889634), np.float32(-127.0)), np.float32(126.0))
    whole = np.float32(math.floor(y))
    f = y - whole - np.float32(0.5)
    p = np.float32(POWER_OF_2[0]) * f + np.float32(POWER_OF_2[1])
    p = p * f + np.float32(POWER_OF_2[2])
    p = p * f + np.float32(POWER_OF_2[3])
    p = p * f + np.float32(POWER_OF_2[4])
    p = p * f + np.float32(POWER_OF_2[5])
    p = p * f + np.float32(POWER_OF_2[6])
    return p * float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@loose_kernel
def swiglu(
    words: Shared,
    phase: int,
    x: Any,
    x_stride: int,
    tokens: int,
    size: int,
    scratch: Any,
    scratch_at: int,
    y: Any,
    y_stride: int,
) -> int:
    """x: float32 [tokens, gate and up], `size` each; y: elements [tokens, size].

    `scratch`: 256 floats of the thread's own, from `scratch_at`.
    """
    parts = (size + _PIECE - 1) // _PIECE
    piece = take(words, phase)
    while piece < parts * tokens:
        token, part = piece // parts, piece % parts
        first = part * _PIECE
        count = min(_PIECE, size - first)
        at = token * x_stride + first
        gate, up = x[at : at + count], x[at + size : at + size + count]
        own = scratch[scratch_at : scratch_at + count]
        for j in range(count):
            own[j] = gate[j] / (np.float32(1) + exp(-gate[j])) * up[j]
        narrow(scratch, scratch_at, y, token * y_stride + first, count)
        piece = take_next(words, phase)
    return finish(words, phase, parts * tokens)
