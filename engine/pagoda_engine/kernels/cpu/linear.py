"""Matrix products of activations with weights that were packed once: one layout from one token to thousands."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pagoda_engine.kernels.cpu.jit import kernel
from pagoda_engine.kernels.cpu.lanes import LANES, has_many_registers
from pagoda_engine.kernels.cpu.tiles import linear_tile
from pagoda_engine.kernels.cpu.work import Shared, finish, take, take_next

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
    # Words of four bytes, one float32 or a pair, moved by torch: it transposes in all threads, and numpy in one.
    panels = torch.from_numpy(target.view(np.int32)).view(-1, depth // pair, LANES)
    source = weight.detach().contiguous().view(torch.int32)
    panels[: whole // LANES] = source[:whole].view(-1, LANES, depth // pair).transpose(1, 2)
    if whole < outputs:
        panels[-1] = 0
        panels[-1, :, : outputs - whole] = source[whole:].T


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
    many = has_many_registers()
    group = 8 if many else 4
    panels = (outputs + LANES - 1) // LANES
    width = 4 if tokens < 3 else 3 if many else 1  # panels of a tile: as many sums as fit in registers
    stride = LANES * depth
    parts = (tokens + _TOKENS_A_PIECE - 1) // _TOKENS_A_PIECE
    pieces = parts * ((panels + width - 1) // width)
    piece = take(words, phase)
    while piece < pieces:
        column, part = piece // parts, piece % parts
        stop = min(tokens, (part + 1) * _TOKENS_A_PIECE)
        panel = column * width
        last = min(panels, panel + width)
        for row in range(part * _TOKENS_A_PIECE, stop, group):
            rows = min(group, stop - row)
            x_at, y_at = row * x_stride, row * y_stride
            tile = width if last - panel == width else 1
            for p in range(panel, last, tile):
                at, to = w_at + p * stride, y_at + p * LANES
                if tile == 4:
                    linear_tile(4, rows, x, x_at, x_stride, w, at, stride, depth, add, y, to, y_stride)
                elif tile == 3:
                    linear_tile(3, rows, x, x_at, x_stride, w, at, stride, depth, add, y, to, y_stride)
                else:
                    linear_tile(1, rows, x, x_at, x_stride, w, at, stride, depth, add, y, to, y_stride)
        if bias_at >= 0:
            column_at, count = panel * LANES, min(outputs, last * LANES) - panel * LANES
            part_of_bias = bias[bias_at + column_at : bias_at + column_at + count]
            for row in range(part * _TOKENS_A_PIECE, stop):
                sums = y[row * y_stride + column_at : row * y_stride + column_at + count]
                for j in range(count):
                    sums[j] += part_of_bias[j]
        piece = take_next(words, phase)
    return finish(words, phase, pieces)
