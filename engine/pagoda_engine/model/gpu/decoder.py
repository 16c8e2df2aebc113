"""The forward pass of a decoder of the common shape: ten launches a layer, whatever the number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pagoda_engine.kernels.triton.embedding import embed
from pagoda_engine.kernels.triton.rms_norm import add_rms_norm, rms_norm
from pagoda_engine.kernels.triton.rotary import rotate_and_write
from pagoda_engine.kernels.triton.swiglu import swiglu
from pagoda_engine.model.attention import AttentionOptions, LayerCache
from pagoda_engine.model.gpu.weights import Weights


@dataclass(frozen=True, slots=True)
class Tokens:
    """A step's tokens, int64 [tokens] each.

    Ids, or places in `sampled` (below 0 where the id stands), positions, and slots of the cache (below 0 is nowhere).
    """

    ids: Tensor
    sources: Tensor
    positions: Tensor
    slots: Tensor
    sampled: Tensor


class Attend(Protocol):
    """Attention of a step's queries [tokens, heads, dim] to their sequences' cached tokens; returns the same shape."""

    def __call__(self, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor: ...


def logits_into(
    logits: Tensor,
    weights: Weights,
    cache: tuple[LayerCache, ...],
    tokens: Tokens,
    attend: Attend,
    rows: Tensor | None,
) -> None:
    """Compute the step's tokens and write the logits of `rows` (int64; None is every token) to `logits`."""
    residual = embed(weights.embedding, tokens.ids, tokens.sources, tokens.sampled)
    x = residual
    for index, (layer, cached) in enumerate(zip(weights.layers, cache, strict=True)):
        norm = layer.attention_norm
        if index == 0:
            x = rms_norm(residual, norm.weight, norm.eps)
        else:
            x = add_rms_norm(x, residual, norm.weight, norm.eps)
        queries = rotate_and_write(
            layer.qkv(x),
            layer.heads,
            cached,
            tokens.positions,
            tokens.slots,
            weights.angles if layer.rotated else None,
            layer.head_norms,
        )
        x = layer.output(attend(cached, queries, layer.options).flatten(1))
        x = add_rms_norm(x, residual, layer.mlp_norm.weight, layer.mlp_norm.eps)
        x = layer.down(swiglu(layer.gate_up(x)))
    if rows is not None:
        x, residual = x.index_select(0, rows), residual.index_select(0, rows)
    weights.head.into(logits, add_rms_norm(x, residual, weights.norm.weight, weights.norm.eps))
