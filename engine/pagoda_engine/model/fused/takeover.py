"""A decoder's weights, moved into the kernels' layout. Each module is freed as soon as its weights are packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pagoda_engine.kernels.cpu.linear import elements, pack, packed_size
from pagoda_engine.kernels.cpu.step import Number, Place, Shape, Weights
from pagoda_engine.model.fused.parts import Decoder, Norm

_NONE = -1


def shape_of(decoder: Decoder) -> Shape:
    layer = decoder.layers[0]
    return Shape(
        layers=len(decoder.layers),
        hidden=layer.query.in_features,
        heads=layer.heads,
        kv_heads=layer.kv_heads,
        dim=layer.dim,
        inner=layer.gate.out_features,
        vocabulary=decoder.head.out_features,
        pair=2 if layer.query.weight.dtype == torch.bfloat16 else 1,
    )


@torch.no_grad()
def take_over(decoder: Decoder, cache_places: Sequence[tuple[int, int]]) -> Weights:
    """Weights for the kernels; the modules are empty then. `cache_places`: where a layer has what, in a block."""
    arena = _Arena.sized(decoder)
    places = np.full((len(decoder.layers) + 1, len(Place)), _NONE, dtype=np.int64)
    numbers = np.zeros((len(decoder.layers) + 1, len(Number)), dtype=np.float32)
    for layer, place, number, cache in zip(decoder.layers, places, numbers, [*cache_places], strict=False):
        place[Place.QKV], place[Place.QKV_BIAS] = arena.linear(layer.query, layer.key, layer.value)
        place[Place.OUTPUT], place[Place.OUTPUT_BIAS] = arena.linear(layer.output)
        place[Place.GATE_UP], place[Place.GATE_UP_BIAS] = arena.linear(layer.gate, layer.up)
        place[Place.DOWN], place[Place.DOWN_BIAS] = arena.linear(layer.down)
        place[Place.ATTENTION_NORM], number[Number.ATTENTION_EPS] = arena.norm(layer.attention_norm)
        place[Place.MLP_NORM], number[Number.MLP_EPS] = arena.norm(layer.mlp_norm)
        place[Place.QUERY_NORM], number[Number.HEAD_EPS] = arena.norm(layer.query_norm)
        place[Place.KEY_NORM], number[Number.HEAD_EPS] = arena.norm(layer.key_norm)
        place[Place.WINDOW] = layer.window or 0
        place[Place.ROTATED] = decoder.cos.shape[1] if layer.rotated else 0
        place[Place.KEYS], place[Place.VALUES] = cache
        number[Number.SCALE] = layer.scale
    own, own_numbers = places[-1], numbers[-1]
    own[Place.ATTENTION_NORM], own_numbers[Number.ATTENTION_EPS] = arena.norm(decoder.norm)
    tied = decoder.tied
    own[Place.QKV], own[Place.QKV_BIAS] = arena.linear(decoder.head)
    own[Place.OUTPUT] = own[Place.QKV] if tied else arena.table(decoder.embedding)
    return Weights(
        matrices=arena.matrices,
        vectors=np.concatenate([*arena.vectors, np.zeros(1, dtype=np.float32)]),
        places=places,
        numbers=numbers,
        cos=elements(decoder.cos),
        sin=elements(decoder.sin),
        angles=decoder.cos.shape[1],
    )


@dataclass(slots=True)
class _Arena:
    """One array for all matrices, filled from its start, and the vectors one after the other."""

    matrices: np.ndarray
    vectors: list[np.ndarray] = field(default_factory=list)
    _used: int = 0
    _vectors_used: int = 0

    @classmethod
    def sized(cls, decoder: Decoder) -> _Arena:
        size = packed_size(*decoder.head.weight.shape)
        size += 0 if decoder.tied else decoder.embedding.weight.numel()
        for layer in decoder.layers:
            for group in (
                (layer.query, layer.key, layer.value),
                (layer.output,),
                (layer.gate, layer.up),
                (layer.down,),
            ):
                size += packed_size(sum(part.out_features for part in group), group[0].in_features)
        bf16 = decoder.head.weight.dtype == torch.bfloat16
        return cls(np.empty(size, dtype=np.uint16 if bf16 else np.float32))

    def linear(self, *parts: nn.Linear) -> tuple[int, int]:
        """Pack layers that read the same input as one. Returns the places of its weight and its bias."""
        weight = torch.cat([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight
        at = self._place(packed_size(*weight.shape), lambda room: pack(weight, room))
        biases = [part.out_features for part in parts if part.bias is not None]
        bias_at = _NONE
        if biases:
            bias_at = self._vector(
                torch.cat([_zeros(part) if part.bias is None else part.bias.float() for part in parts])
            )
        for part in parts:
            _free(part)
        return at, bias_at

    def table(self, embedding: nn.Embedding) -> int:
        rows = elements(embedding.weight)
        at = self._place(rows.size, lambda room: np.copyto(room, rows))
        _free(embedding)
        return at

    def norm(self, norm: Norm | None) -> tuple[int, float]:
        return (_NONE, 0.0) if norm is None else (self._vector(norm.weight.float()), norm.eps)

    def _place(self, size: int, fill: Callable[[np.ndarray], None]) -> int:
        at = self._used
        fill(self.matrices[at : at + size])
        self._used += size
        return at

    def _vector(self, vector: Tensor) -> int:
        at = self._vectors_used
        self.vectors.append(vector.numpy().copy())
        self._vectors_used += len(vector)
        return at


def _zeros(part: nn.Linear) -> Tensor:
    return torch.zeros(part.out_features)


def _free(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.new_empty(0)
