"""Rows of the embedding table as float32."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Any

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import LANES, get
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next


@kernel
def embed(
    words: Shared,
    phase: int,
    ids: Any,
    tokens: int,
    table: Any,
    table_at: int,
    packed: bool,
    size: int,
    pair: int,
    x: Any,
    x_stride: int,
) -> int:
    """`x[i] = table[ids[i]]`. The table is row by row, or `packed` as a weight, which a tied output layer reads too."""
    piece = take(words, phase)
    while piece < tokens:
        row = ids[piece]
        for k in range(size):
            at = row * size + k
            if packed:
                panel = row // LANES * LANES * size
                at = panel + ((k // pair) * LANES + row % LANES) * pair + k % pair
            x[piece * x_stride + k] = get(table, table_at + at)
        piece = take_next(words, phase)
    return finish(words, phase, tokens)
