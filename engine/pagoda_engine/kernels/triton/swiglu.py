"""SiLU(gate) * up, over rows that hold gate and up side by side."""

from __future__ import annotations

# ruff: noqa: ANN001, ANN202, N803 - what a kernel takes is typed by Triton, and its constants are in capitals
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

_BLOCK: Final = 1024


def swiglu(gate_up: Tensor) -> Tensor:
    """`plain.swiglu` of contiguous [tokens, 2 * inner], gate first, computed in float32. Returns [tokens, inner]."""
    tokens, inner = len(gate_up), gate_up.shape[1] // 2
    y = gate_up.new_empty(tokens, inner)
    if tokens:
        # Tokens come first in the grid: the other axes end at 65535.
        _swiglu[(tokens, triton.cdiv(inner, _BLOCK))](
            gate_up, y, INNER=inner, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=True
        )
    return y


@triton.jit
def _swiglu(gate_up, y, INNER: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < INNER
    gate = tl.load(gate_up + row * 2 * INNER + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * INNER + INNER + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * INNER + columns, (gate * tl.sigmoid(gate) * up).to(y.dtype.element_ty), mask=inside)
