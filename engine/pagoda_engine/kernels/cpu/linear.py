"""Matrix products of activations with weights that were packed once: one layout from one token to thousands."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
# ruff: noqa: E501 - one line a call reads better than ten
from typing import Any, Final

import llvmlite.binding as llvm
import torch
from numpy.typing import NDArray
from torch import Tensor

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import LANES
from pagoda_engine.kernels.cpu.tiles import linear_tile
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

_WIDE: Final = bool(llvm.get_host_cpu_features().get("avx512f"))  # 32 registers of sixteen lanes
_ROWS: Final = 8 if _WIDE else 4
_PANELS: Final = 3 if _WIDE else 1  # with so many rows: as many sums as fit in registers
_PANELS_ONE_ROW: Final = 4
_TOKENS_A_PIECE: Final = 64


def elements(weight: Tensor) -> NDArray[Any]:
    """A contiguous tensor's elements as an array on the same memory: bfloat16 as uint16."""
    flat = weight.detach().reshape(-1)
    array: NDArray[Any] = flat.view(torch.uint16).numpy() if weight.dtype == torch.bfloat16 else flat.numpy()
    return array


def packed_size(outputs: int, depth: int) -> int:
    """Elements of a packed weight [outputs, depth]."""
    return -(-outputs // LANES) * LANES * depth


def pack(weight: Tensor, target: NDArray[Any]) -> None:
    """Write a weight [outputs, depth], bfloat16 (even depth) or float32, as panels of sixteen outputs.

    `target` has `packed_size` elements: [panels, depth, 16], or [panels, depth / 2, 16, 2] of bfloat16. Outputs that
    are missing from the last panel are zero.
    """
    outputs, depth = weight.shape
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    whole = outputs // LANES * LANES
    panels = target.reshape(-1, depth // pair, LANES, pair)
    source = elements(weight.contiguous()).reshape(outputs, depth // pair, pair)
    panels[: whole // LANES] = source[:whole].reshape(-1, LANES, depth // pair, pair).swapaxes(1, 2)
    if whole < outputs:
        panels[-1] = 0
        panels[-1, :, : outputs - whole] = source[whole:].swapaxes(0, 1)


@kernel
def linear(
    words: Shared,
    phase: int,
    x: Any,
    x_stride: int,
    tokens: int,
    w: Any,
    w_at: int,
    depth: int,
    outputs: int,
    bias: Any,
    bias_at: int,
    add: bool,
    y: Any,
    y_stride: int,
) -> int:
    """`y (+)= x w^T + bias`, shared among the threads.

    x: elements [tokens, depth], rows `x_stride` apart; w: packed, from `w_at`; bias: float32 from `bias_at`, none if
    that is negative; y: float32, rows `y_stride` apart. Both have rows up to a multiple of eight, and `y` columns up
    to a multiple of sixteen; what stands there is not defined.
    """
    panels = (outputs + LANES - 1) // LANES
    width = _PANELS_ONE_ROW if tokens < 3 else _PANELS
    parts = (tokens + _TOKENS_A_PIECE - 1) // _TOKENS_A_PIECE
    pieces = parts * ((panels + width - 1) // width)
    piece = take(words, phase)
    while piece < pieces:
        column, part = piece // parts, piece % parts
        stop = min(tokens, (part + 1) * _TOKENS_A_PIECE)
        panel = column * width
        last = min(panels, panel + width)
        for row in range(part * _TOKENS_A_PIECE, stop, _ROWS):
            _rows(
                x, row * x_stride, x_stride, min(_ROWS, stop - row), w, w_at, panel, last, depth, add, y, row * y_stride,
                y_stride,
            )  # fmt: skip
        if bias_at >= 0:
            for row in range(part * _TOKENS_A_PIECE, stop):
                for j in range(panel * LANES, min(outputs, last * LANES)):
                    y[row * y_stride + j] += bias[bias_at + j]
        piece = take_next(words, phase)
    return finish(words, phase, pieces)


@kernel
def _rows(x, x_at, x_stride, rows, w, w_at, panel, last, depth, add, y, y_at, y_stride):  # noqa: ANN001, ANN202
    """Up to eight rows times panels `panel` to `last`."""
    stride = LANES * depth
    if last - panel == _PANELS and rows > 4:
        linear_tile(8, _PANELS, x, x_at, x_stride, w, w_at + panel * stride, stride, depth, add, y, y_at + panel * LANES, y_stride)  # fmt: skip
        return
    if last - panel == _PANELS and rows > 2:
        linear_tile(4, _PANELS, x, x_at, x_stride, w, w_at + panel * stride, stride, depth, add, y, y_at + panel * LANES, y_stride)  # fmt: skip
        return
    if last - panel == _PANELS_ONE_ROW and rows == 1:
        linear_tile(1, _PANELS_ONE_ROW, x, x_at, x_stride, w, w_at + panel * stride, stride, depth, add, y, y_at + panel * LANES, y_stride)  # fmt: skip
        return
    if last - panel == _PANELS_ONE_ROW and rows == 2:
        linear_tile(2, _PANELS_ONE_ROW, x, x_at, x_stride, w, w_at + panel * stride, stride, depth, add, y, y_at + panel * LANES, y_stride)  # fmt: skip
        return
    for p in range(panel, last):
        if rows > 4:
            linear_tile(8, 1, x, x_at, x_stride, w, w_at + p * stride, stride, depth, add, y, y_at + p * LANES, y_stride)  # fmt: skip
        elif rows > 2:
            linear_tile(4, 1, x, x_at, x_stride, w, w_at + p * stride, stride, depth, add, y, y_at + p * LANES, y_stride)  # fmt: skip
        elif rows == 2:
            linear_tile(2, 1, x, x_at, x_stride, w, w_at + p * stride, stride, depth, add, y, y_at + p * LANES, y_stride)  # fmt: skip
        else:
            linear_tile(1, 1, x, x_at, x_stride, w, w_at + p * stride, stride, depth, add, y, y_at + p * LANES, y_stride)  # fmt: skip
