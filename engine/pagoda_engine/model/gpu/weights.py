"""A decoder's weights as the GPU wants them: projections that read the same input are one matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pagoda_engine.kernels.triton.rotary import Angles, HeadNorms
from pagoda_engine.model.attention import AttentionOptions
from pagoda_engine.model.fused.parts import Decoder, Layer


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x @ weight.T + bias; weight [outputs, inputs]."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)

    def into(self, y: Tensor, x: Tensor) -> None:
        """The same, written to `y`."""
        if self.bias is None:
            torch.mm(x, self.weight.t(), out=y)
        else:
            torch.addmm(self.bias, x, self.weight.t(), out=y)


@dataclass(frozen=True, slots=True)
class Gain:
    """RMSNorm's weight and what keeps it from dividing by 0."""

    weight: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: `qkv` are queries, keys and values side by side, `gate_up` the two halves of the MLP's input."""

    attention_norm: Gain
    qkv: Linear
    output: Linear
    head_norms: HeadNorms | None
    mlp_norm: Gain
    gate_up: Linear
    down: Linear
    heads: int
    kv_heads: int
    dim: int
    rotated: bool
    options: AttentionOptions


@dataclass(frozen=True, slots=True)
class Weights:
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Gain
    head: Linear
    angles: Angles

    @property
    def vocabulary(self) -> int:
        return len(self.head.weight)

    @property
    def windows(self) -> frozenset[int | None]:
        return frozenset(layer.options.window for layer in self.layers)


@torch.no_grad()
def take_over(decoder: Decoder) -> Weights:
    """The decoder's weights. Modules whose matrices were joined are empty afterwards: nothing is there twice."""
    device = decoder.embedding.weight.device
    return Weights(
        embedding=decoder.embedding.weight.detach(),
        layers=tuple(_layer(layer) for layer in decoder.layers),
        norm=Gain(decoder.norm.weight.detach(), decoder.norm.eps),
        head=_joined(decoder.head),
        angles=Angles(decoder.cos.to(device), decoder.sin.to(device)),
    )


def _layer(layer: Layer) -> LayerWeights:
    norms = None
    if layer.query_norm and layer.key_norm:
        norms = HeadNorms(layer.query_norm.weight.detach(), layer.key_norm.weight.detach(), layer.query_norm.eps)
    return LayerWeights(
        attention_norm=Gain(layer.attention_norm.weight.detach(), layer.attention_norm.eps),
        qkv=_joined(layer.query, layer.key, layer.value),
        output=_joined(layer.output),
        head_norms=norms,
        mlp_norm=Gain(layer.mlp_norm.weight.detach(), layer.mlp_norm.eps),
        gate_up=_joined(layer.gate, layer.up),
        down=_joined(layer.down),
        heads=layer.heads,
        kv_heads=layer.kv_heads,
        dim=layer.dim,
        rotated=layer.rotated,
        options=AttentionOptions(layer.scale, layer.window),
    )


def _joined(*parts: nn.Linear) -> Linear:
    if len(parts) == 1:
        return Linear(parts[0].weight.detach(), None if parts[0].bias is None else parts[0].bias.detach())
    weight = torch.cat([part.weight for part in parts])
    bias = None
    if any(part.bias is not None for part in parts):
        bias = torch.cat([weight.new_zeros(part.out_features) if part.bias is None else part.bias for part in parts])
    for part in parts:
        for parameter in part.parameters(recurse=False):
            parameter.data = parameter.data.new_empty(0)
    return Linear(weight, bias)
