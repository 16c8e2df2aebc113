"""What a model does with attention, observed in two passes over two tokens before any request depends on it.

Configs say in many words, and sometimes not at all, how a model computes. What the engine relies on is seen instead:
that every layer attends once and in a way that the kernels know, and that nothing but attention lets one token change
another. All requests of a step stand in one row, so a convolution over neighbours, positions counted from the row's
start, or an embedding scaled by the longest text would mix them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model.attention import AttentionOptions
from pagoda_engine.model.kv_cache import LayerShape

# Of the largest number. The same row may be rounded differently beside another one; a mistake is far larger.
_TOLERANCE: Final = 0.03


@torch.inference_mode()
def probe(model: PreTrainedModel, max_model_len: int) -> tuple[LayerShape, ...]:
    """What each layer stores of a token. Raises ModelUnsupported naming what this engine can't compute."""
    name = type(model).__name__
    # The same token at the same position: once after the first position of a text, once before the last.
    position = min(5, max_model_len - 1)
    after, before = _Witness(name), _Witness(name)
    logits = after.watch(model, [1, 2], [0, position])[1]
    others = before.watch(model, [2, 3], [position, max_model_len - 1])[0]
    count = model.config.num_hidden_layers
    if missing := sorted(set(range(count)).symmetric_difference(after.layers)):
        raise ModelUnsupported(
            f"of {name}'s {count} layers, {len(after.layers)} use softmax attention (look at {missing[:3]}); "
            "this engine runs models that use it once in every layer"
        )
    for index, layer in after.layers.items():
        _check_window(name, model.config, index, layer.options, max_model_len)
        for one, other in zip(layer.stored(1), before.layers[index].stored(0), strict=True):
            _check_same(name, one, other)
    _check_same(name, logits, others)
    return tuple(after.layers[index].shape for index in range(count))


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one layer gave to its attention: queries, keys and values [tokens, heads, dim]."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    options: AttentionOptions

    @property
    def shape(self) -> LayerShape:
        return LayerShape(self.keys.shape[1], self.keys.shape[2], self.values.shape[2], self.keys.dtype)

    def stored(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries[row], self.keys[row], self.values[row]


class _Witness:
    """An `AttentionStep` without a cache: keeps what it is given, and returns zeros, so that no token sees another."""

    def __init__(self, name: str) -> None:
        self.layers: dict[int, _Layer] = {}
        self._name = name

    def watch(self, model: PreTrainedModel, tokens: list[int], positions: list[int]) -> Tensor:
        """Run the model over a row of tokens; returns logits [tokens, vocabulary]."""
        ids, places = (torch.tensor([row], device=model.device) for row in (tokens, positions))
        logits: Tensor = model(input_ids=ids, position_ids=places, use_cache=False, pagoda_step=self).logits
        return logits[0]

    def attend(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions
    ) -> Tensor:
        if layer_index in self.layers:
            raise ModelUnsupported(f"{self._name}'s layer {layer_index} attends twice, which this engine can't compute")
        if queries.shape[1] % keys.shape[1] or keys.shape[1] != values.shape[1]:
            raise ModelUnsupported(
                f"{self._name}'s layer {layer_index} has {queries.shape[1]} heads of queries, {keys.shape[1]} of keys "
                f"and {values.shape[1]} of values, which do not fit each other"
            )
        self.layers[layer_index] = _Layer(queries, keys, values, options)
        return queries.new_zeros(*queries.shape[:-1], values.shape[-1])


def _check_same(name: str, one: Tensor, other: Tensor) -> None:
    largest = torch.maximum(one.abs().max(), other.abs().max())
    if (one - other).abs().max() > _TOLERANCE * largest:
        raise ModelUnsupported(
            f"{name} lets a token change others by more than attention, so requests in one batch would mix; "
            "serve another model"
        )


def _check_window(
    name: str, config: PreTrainedConfig, index: int, options: AttentionOptions, max_model_len: int
) -> None:
    """A window that a model only puts into its mask would be lost, since masks are not made."""
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    slides = (
        isinstance(window, int) and 0 < window < max_model_len and (not kinds or kinds[index] == "sliding_attention")
    )
    if slides and options.window != window:
        raise ModelUnsupported(
            f"{name}'s layer {index} looks back {window} tokens by its config, and tells attention {options.window}; "
            f"set --max-model-len to {window} or less"
        )
