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
    """What a layer asks of softmax attention. All of it is about the logits, which are computed in float32.

    `scale` multiplies them. With a `softcap` they become `softcap * tanh(logit / softcap)` (Gemma 2, arXiv 2408.00118).
    With a `window` a token sees itself and the `window - 1` before it. `sinks` [heads] are one more logit for each
    head, neither scaled nor capped, that takes part in the softmax and has no value (gpt-oss; arXiv 2309.17453).
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether scale and window say it all."""
        return self.softcap is None and self.sinks is None
