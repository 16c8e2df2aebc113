"""The likeliest token of each row of logits."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Any

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import largest
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next


@kernel
def greedy(
    words: Shared, phase: int, logits: Any, stride: int, rows: int, vocabulary: int, best: Any, values: Any
) -> int:
    """`best[i]` (int64) and its logit, by rows; -1 and NaN where a logit is NaN. Shared among the threads."""
    row = take(words, phase)
    while row < rows:
        best[row], values[row] = largest(logits, row * stride, vocabulary)
        row = take_next(words, phase)
    return finish(words, phase, rows)
