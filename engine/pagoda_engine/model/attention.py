"""The seam between transformers' modelling code and our kernels.

Every attention layer of a model calls `forward` below, under the name `IMPLEMENTATION`, with a batch of one and the
tokens of all requests one after the other. What a step needs beyond queries, keys and values travels as the keyword
argument `pagoda_step` through the model's forward, so that nothing is global: an object with the one method of
`AttentionStep`. Rotary embeddings have been applied by then; masks are not made, since the step knows who may see whom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.kernels.paged import AttentionOptions as AttentionOptions
from pagoda_engine.kernels.paged import LayerCache as LayerCache

IMPLEMENTATION: Final = "pagoda_paged"

# Keyword arguments, by transformers' names, that change nothing here: a step knows positions and lengths, and this is
# inference. Any other one that is not None asks for something that the kernels don't compute.
_HARMLESS: Final = frozenset(
    {
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "deterministic",
        "dropout",
        "head_mask",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Who is who in a step's flat tokens.

    `starts` has one entry more than there are sequences: sequence i's queries are `starts[i]:starts[i + 1]`.
    `contexts[i]` counts its tokens in the cache once this step has written its own, which are the last of them.
    `slots` (int64, one for each token, on the device) says where a token's key and value go: block times block size
    plus offset. `tables[i]` are the blocks of sequence i, in order, at least as many as its context needs.
    """

    starts: tuple[int, ...]
    contexts: tuple[int, ...]
    slots: Tensor
    tables: tuple[tuple[int, ...], ...]
    block_size: int


class AttentionKernels(Protocol):
    """The operations that a device's kernels implement; made once for each step, so that indices are shared by layers.

    `TorchAttention` is the plain implementation and every other one's oracle.
    """

    def write_kv(self, layer: LayerCache, keys: Tensor, values: Tensor) -> None:
        """Write the step's keys and values [tokens, kv_heads, head_dim] to their slots."""

    def paged_attention(self, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        """Causal attention of queries [tokens, heads, head_dim] to their own sequences' cached tokens.

        Returns [tokens, heads, value_dim].
        """


KernelsForStep = Callable[[Layout], AttentionKernels]


class AttentionStep(Protocol):
    """What a layer's attention is asked of."""

    def attend(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions
    ) -> Tensor:
        """Store keys and values, and return the attention's output. Shapes as in `AttentionKernels`."""


@dataclass(frozen=True, slots=True)
class PagedStep:
    """A step over the real cache."""

    kernels: AttentionKernels
    layers: tuple[LayerCache, ...]

    def attend(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions
    ) -> Tensor:
        layer = self.layers[layer_index]
        self.kernels.write_kv(layer, keys, values)
        return self.kernels.paged_attention(layer, queries, options)


def register() -> None:
    """Make `IMPLEMENTATION` known to transformers. It is not registered for masks, which means that none are made."""
    ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, forward)


def forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    pagoda_step: AttentionStep | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query, key, value [1, heads, tokens, dim] to [1, tokens, heads, dim].

    Raises ModelUnsupported where the layer asks for a kind of attention that the kernels don't compute.
    """
    name = type(module).__name__
    if pagoda_step is None:
        raise ModelUnsupported(f"{name} does not pass its caller's arguments on to attention; serve another model")
    for option, setting in others.items():
        if option not in _HARMLESS and setting is not None:
            raise ModelUnsupported(f"{name} wants attention with {option!r}, which this engine does not compute")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal or attention_mask is not None:
        raise ModelUnsupported(f"{name} wants attention that is not causal, which this engine does not compute")
    layer_index = getattr(module, "layer_idx", None)
    if layer_index is None:
        raise ModelUnsupported(f"{name} does not know which layer it is in; serve another model")
    output = pagoda_step.attend(
        layer_index,
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        AttentionOptions(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap, s_aux),
    )
    return output.unsqueeze(0), None
