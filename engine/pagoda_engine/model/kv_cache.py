"""The paged cache's tensors: what a token costs, and room for as many blocks as were decided on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model.attention import LayerCache


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Keys and values of one token in one layer."""

    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


def stored_as(shapes: tuple[LayerShape, ...], name: str, device: torch.device) -> tuple[LayerShape, ...]:
    """The shapes as `--kv-cache-dtype` wants them stored: `auto` leaves them, fp8 halves 16-bit ones.

    Raises ModelUnsupported on a GPU that does not convert from and to float8.
    """
    if name == "auto":
        return shapes
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise ModelUnsupported(
            f"--kv-cache-dtype {name}: {torch.cuda.get_device_name(device)} has no float8, which came with compute "
            "capability 8.9 (Ada, Hopper); use --kv-cache-dtype auto"
        )
    return tuple(replace(shape, dtype=torch.float8_e4m3fn) for shape in shapes)


def allocate(
    shapes: tuple[LayerShape, ...], num_blocks: int, block_size: int, device: torch.device
) -> tuple[LayerCache, ...]:
    """Zeroed blocks for every layer. On a CPU the system gives the memory as it is first written."""

    def zeros(shape: LayerShape, dim: int) -> Tensor:
        size = (num_blocks, block_size, shape.kv_heads, dim)
        if device.type != "cpu":
            return torch.zeros(size, dtype=shape.dtype, device=device)
        # numpy asks the system for zeros; torch would write them, and so have all of the cache given at once.
        return torch.from_numpy(np.zeros(math.prod(size) * shape.dtype.itemsize, np.uint8)).view(shape.dtype).view(size)

    def scale(shape: LayerShape) -> Tensor | None:
        # A float8 keeps three bits of any number up to 448, which keys and values are far below.
        return torch.ones(shape.kv_heads, device=device) if shape.dtype == torch.float8_e4m3fn else None

    return tuple(
        LayerCache(zeros(shape, shape.key_dim), zeros(shape, shape.value_dim), scale(shape), scale(shape))
        for shape in shapes
    )
