"""The paged cache's tensors: what a token costs, and room for as many blocks as were decided on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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


def allocate(
    shapes: tuple[LayerShape, ...], num_blocks: int, block_size: int, device: torch.device
) -> tuple[LayerCache, ...]:
    """Zeroed blocks for every layer. On a CPU the system gives the memory as it is first written."""

    def zeros(shape: LayerShape, dim: int) -> Tensor:
        return torch.zeros(num_blocks, block_size, shape.kv_heads, dim, dtype=shape.dtype, device=device)

    return tuple(LayerCache(zeros(shape, shape.key_dim), zeros(shape, shape.value_dim)) for shape in shapes)
