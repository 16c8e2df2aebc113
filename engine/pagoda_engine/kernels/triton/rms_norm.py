"""RMSNorm of rows, alone or with the residual added first: one pass over memory instead of five."""

from __future__ import annotations

# ruff: noqa: ANN001, ANN202, N803 - what a kernel takes is typed by Triton, and its constants are in capitals
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
import torch
import triton
import triton.language as tl
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`plain.rms_norm` of contiguous x [tokens, size], computed in float32, in x's type."""
    y = torch.empty_like(x)
    if len(x):
        _rms_norm[(len(x),)](x, x, weight, y, eps, **_shape(x), ADD=False)
    return y


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`residual += x`, rounded to the residual's type, then `plain.rms_norm` of it. Both contiguous [tokens, size]."""
    y = torch.empty_like(x)
    if len(x):
        _rms_norm[(len(x),)](x, residual, weight, y, eps, **_shape(x), ADD=True)
    return y


def _shape(x: Tensor) -> dict[str, int]:
    block = triton.next_power_of_2(x.shape[-1])
    return {"SIZE": x.shape[-1], "BLOCK": block, "num_warps": min(16, max(1, block // 512)), "enable_fp_fusion": True}


@triton.jit
def _rms_norm(x, residual, weight, y, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE
    columns = tl.arange(0, BLOCK)
    inside = columns < SIZE
    row = tl.load(x + at + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        row += tl.load(residual + at + columns, mask=inside, other=0.0).to(tl.float32)
        # What is normalised is what later layers will read, rounding included.
        rounded = row.to(residual.dtype.element_ty)
        tl.store(residual + at + columns, rounded, mask=inside)
        row = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(row * row) / SIZE + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at + columns, (row * scale * gain).to(y.dtype.element_ty), mask=inside)
