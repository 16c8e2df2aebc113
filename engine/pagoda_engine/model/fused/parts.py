"""What a decoder of the common shape consists of, and its plain computation: the fused layer's definition."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from pagoda_engine.kernels import plain


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm with a weight of one dimension."""

    module: nn.Module
    eps: float

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight

    def __call__(self, x: Tensor) -> Tensor:
        return plain.rms_norm(x, self.weight.float(), self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """x + output(attention(query, key, value)), then x + down(silu(gate) * up); a norm before each half.

    `query_norm` and `key_norm`, of one head each, come before the rotary embedding, which is there if `rotated`.
    """

    attention_norm: Norm
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    query_norm: Norm | None
    key_norm: Norm | None
    mlp_norm: Norm
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    dim: int
    scale: float
    window: int | None
    rotated: bool

    @property
    def heads(self) -> int:
        return self.query.out_features // self.dim

    @property
    def kv_heads(self) -> int:
        return self.key.out_features // self.dim

    def modules(self) -> list[nn.Module]:
        """The modules whose parameters this layer is made of."""
        norms = (self.attention_norm, self.mlp_norm, self.query_norm, self.key_norm)
        linears = (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)
        return [*(norm.module for norm in norms if norm), *linears]

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One sequence from its start, in float32: x [tokens, hidden], cos and sin [tokens, pairs]."""
        normed = self.attention_norm(x)
        queries = self._heads(self.query, normed, self.query_norm)
        keys = self._heads(self.key, normed, self.key_norm)
        if self.rotated:
            queries, keys = plain.rotate(queries, cos, sin), plain.rotate(keys, cos, sin)
        values = self._heads(self.value, normed, None)
        attended = plain.attention(queries, keys, values, self.scale, self.window)
        x = x + _linear(self.output, attended.flatten(1))
        normed = self.mlp_norm(x)
        return x + _linear(self.down, plain.swiglu(_linear(self.gate, normed), _linear(self.up, normed)))

    def _heads(self, projection: nn.Linear, x: Tensor, norm: Norm | None) -> Tensor:
        heads = _linear(projection, x).view(len(x), -1, self.dim)
        return heads if norm is None else norm(heads)


@dataclass(frozen=True, slots=True)
class Decoder:
    """Embedding, layers of one shape, norm, output layer. cos, sin: float32 [positions, pairs]."""

    embedding: nn.Embedding
    layers: tuple[Layer, ...]
    norm: Norm
    head: nn.Linear
    cos: Tensor
    sin: Tensor

    @property
    def tied(self) -> bool:
        return self.embedding.weight.data_ptr() == self.head.weight.data_ptr()

    def logits(self, hidden: Tensor) -> Tensor:
        return _linear(self.head, self.norm(hidden.float()))


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, module.weight.float(), None if module.bias is None else module.bias.float())
