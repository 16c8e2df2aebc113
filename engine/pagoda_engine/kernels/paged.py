"""One layer's paged cache, and what a layer may ask of attention over it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's paged cache: `keys` are [blocks, block_size, kv_heads, head_dim], `values` [.., .., .., value_dim].

    In float8_e4m3fn, a stored element times its head's scale is the value; the scales are float32 [kv_heads].
    """

    keys: Tensor
    values: Tensor
    key_scale: Tensor | None = None
    value_scale: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AttentionOptions:
    """What a layer asks of its attention.

    Scores are multiplied by `scale`. With a `window`, a token sees itself and the `window - 1` before it. With a
    `softcap`, a logit becomes softcap * tanh(logit / softcap). `sinks` [heads] are one more logit a head, neither scaled
    nor capped, that takes its share of the softmax and has no value.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
