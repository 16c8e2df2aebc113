"""The paged cache's tensors: what a token costs, and room for as many blocks as were decided on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model.attention import AttentionOptions, LayerCache


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


class ShapeProbe:
    """An `AttentionStep` without a cache: notes what each layer would store, and returns zeros.

    One pass of the model with it tells the shape of the cache from what the layers do, not from what a config's keys
    are called.
    """

    def __init__(self) -> None:
        self._shapes: dict[int, LayerShape] = {}

    def attend(
        self,
        layer_index: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        options: AttentionOptions,  # noqa: ARG002 - the protocol's signature
    ) -> Tensor:
        if layer_index in self._shapes:
            raise ModelUnsupported(f"layer {layer_index} attends twice in one pass, which this engine does not compute")
        if queries.shape[1] % keys.shape[1]:
            raise ModelUnsupported(
                f"layer {layer_index} has {queries.shape[1]} query heads, no multiple of its {keys.shape[1]} KV heads"
            )
        self._shapes[layer_index] = LayerShape(keys.shape[1], keys.shape[2], values.shape[2], keys.dtype)
        return queries.new_zeros(*queries.shape[:-1], values.shape[-1])

    def shapes(self, num_layers: int) -> tuple[LayerShape, ...]:
        """The layers' shapes in order.

        Raises ModelUnsupported unless each of `num_layers` layers attended: the others are of a kind (state space,
        linear attention) whose state the cache can't hold.
        """
        missing = sorted(set(range(num_layers)) - set(self._shapes))
        if missing or len(self._shapes) != num_layers:
            raise ModelUnsupported(
                f"of {num_layers} layers, {len(self._shapes)} use softmax attention (not, say, {missing[:3]}); "
                "this engine runs models that use it in every layer"
            )
        return tuple(self._shapes[index] for index in range(num_layers))


def allocate(
    shapes: tuple[LayerShape, ...], num_blocks: int, block_size: int, device: torch.device
) -> tuple[LayerCache, ...]:
    """Zeroed blocks for every layer. On a CPU the system gives the memory as it is first written."""

    def zeros(shape: LayerShape, dim: int) -> Tensor:
        return torch.zeros(num_blocks, block_size, shape.kv_heads, dim, dtype=shape.dtype, device=device)

    return tuple(LayerCache(zeros(shape, shape.key_dim), zeros(shape, shape.value_dim)) for shape in shapes)
