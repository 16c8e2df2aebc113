"""The distribution that a token is drawn from, and the draw.

A token is drawn by inverting the distribution at one uniform number, which is a hash of (seed, position). So a
request's text depends neither on its batch nor on the device's random generator, and survives preemption.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from pagoda_engine.model.transfer import upload
from pagoda_engine.sampling_params import SamplingParams


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that (seed, position) alone decides.

    52 bits, so that its product with a total in float64 is always below the total.
    """
    digest = blake2b(struct.pack("<qq", seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 12) / 2**52


def draw(weights: Tensor, points: Sequence[float]) -> Tensor:
    """The first token of each row whose cumulative weight is above its point's share of the row's total.

    So a token of weight 0 is never drawn. `weights` [rows, vocabulary]; returns int64 [rows], tokens of the vocabulary
    also where a row's weights are NaN. Costs a sum in float64 over the vocabulary.
    """
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    targets = upload(points, torch.float64, weights.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True).squeeze(1).clamp_max(weights.shape[-1] - 1)


def probabilities(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """The distributions that tokens are drawn from: temperature, then top-k, top-p, min-p. [rows, vocabulary], float32.

    Not normalised after the filters: what they cut off is 0. The likeliest token is never cut off, and what is as
    likely as the last token that a filter keeps is kept with it, so that no order among equals matters. Costs a
    softmax; top-k a partial sort of k, top-p a sort of the tokens that are not too unlikely, min-p a maximum, of all
    rows if one asks for it.
    """

    def column(values: Sequence[float]) -> Tensor:
        return upload(values, torch.float32, logits.device)[:, None]

    # The maximum is taken away first, so that no temperature can make an infinity.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / column([p.temperature for p in params]).clamp_min(1e-30)
    vocabulary = logits.shape[-1]
    top_k = [min(p.top_k or vocabulary, vocabulary) for p in params]
    if min(top_k) < vocabulary:
        scaled = _top_k(scaled, top_k)
    weights = scaled.softmax(dim=-1)
    if any(p.top_p < 1 for p in params):
        weights = _top_p(weights, column([p.top_p for p in params]))
    if any(p.min_p > 0 for p in params):
        floor = column([p.min_p for p in params]) * weights.amax(dim=-1, keepdim=True)
        weights = weights.masked_fill(weights < floor, 0.0)
    return weights


def _top_k(scaled: Tensor, top_k: Sequence[int]) -> Tensor:
    """Keep the `top_k[row]` largest of each row, all of them where that is the vocabulary."""
    vocabulary, device = scaled.shape[-1], scaled.device
    widest = max(k for k in top_k if k < vocabulary)
    best = scaled.topk(widest, dim=-1).values
    last = upload([min(k, widest) - 1 for k in top_k], torch.int64, device)[:, None]
    limited = upload([k < vocabulary for k in top_k], torch.bool, device)[:, None]
    return scaled.masked_fill(limited & (scaled < best.gather(1, last)), float("-inf"))


def _top_p(weights: Tensor, top_p: Tensor) -> Tensor:
    """Keep the likeliest tokens until they come to `top_p`, the one that reaches it among them.

    Holtzman et al. 2020, https://arxiv.org/abs/1904.09751.
    """
    vocabulary = weights.shape[-1]
    # All tokens below this come to less than what top_p leaves out, so whatever is kept is among the others. To count
    # them would make a GPU's host wait.
    likely = (weights >= (1 - top_p) / vocabulary) & (top_p < 1)
    most = vocabulary if weights.is_cuda else max(1, int(likely.sum(dim=-1).max()))
    ordered = weights.topk(most, dim=-1).values
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    count = (before < top_p).sum(dim=-1, keepdim=True).clamp_min(1)
    last = ordered.gather(1, count - 1)
    return weights.masked_fill((weights < last) & (top_p < 1), 0.0)
