"""The kernels' twins in plain torch: slow, obvious, on every device, and their oracle.

Everything is computed in float32 unless the inputs are float64; shapes are [tokens, features] or [tokens, heads, dim].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square normalisation over the last dimension (Zhang and Sennrich, 2019)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [tokens, heads, dim], pairs half of the rotated part apart (GPT-NeoX's order).

    cos, sin: [tokens, half], for the first `2 * half` features; the others stay.
    """
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up (Shazeer, 2020)."""
    return F.silu(gate) * up


def attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None) -> Tensor:
    """Causal attention of one sequence's last tokens: queries [tokens, heads, dim], keys and values [context, kv, dim].

    With a `window`, a token sees itself and the `window - 1` before it. Returns [tokens, heads, value dim].
    """
    group = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * scale
    positions = torch.arange(len(keys), device=keys.device)
    distance = positions[len(keys) - len(queries) :, None] - positions
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), values)


def sample(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float) -> int:
    """The next token by one row of logits [vocabulary], or -1 where they aren't finite; float64 throughout.

    The likeliest at `temperature` 0. Else drawn from softmax(logits / temperature) without what the filters cut off,
    in this order (0, 1 and 0 are off): all but the `top_k` likeliest, all behind the likeliest that come to `top_p` of
    what is left, and what is less likely than `min_p` times the likeliest. Equals stay or go together. The draw inverts
    the cumulative distribution at `uniform`, in [0, 1).
    """
    logits = logits.double()
    if not logits.max().isfinite():
        return -1
    if temperature == 0:
        return int(logits.argmax())
    weights = ((logits - logits.max()) / temperature).softmax(0)
    ordered = weights.sort(descending=True).values
    if 0 < top_k < len(ordered):
        weights = weights.where(weights >= ordered[top_k - 1], 0.0)
        ordered = weights.sort(descending=True).values
    if top_p < 1:
        enough = int((ordered.cumsum(0) < top_p * weights.sum()).sum())
        weights = weights.where(weights >= ordered[min(enough, len(ordered) - 1)], 0.0)
    cumulative = weights.where(weights >= min_p * weights.max(), 0.0).cumsum(0)
    return int((cumulative <= uniform * cumulative[-1]).sum())
