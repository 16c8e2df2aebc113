"""From logits to tokens: greedy or random, each request by its own parameters, whatever stands beside it.

A random token is drawn by inverting the distribution at one uniform number, which is a hash of (seed, position). So a
request's text depends neither on its batch nor on the device's random generator, and survives preemption.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from pagoda_engine.core.engine import Sample
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work

_NOT_FINITE = (
    "the model's output for this request is not finite (NaN or infinity); try again, or serve the model with "
    "--dtype bfloat16 or float32"
)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that (seed, position) alone decides.

    52 bits, so that its product with a total in float64 is always below the total.
    """
    digest = blake2b(struct.pack("<qq", seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 12) / 2**52


class Choice:
    """The tokens chosen for a step's requests, on the device, and on their way to the host."""

    def __init__(self, tokens: Tensor, finite: Tensor) -> None:
        """Takes int64 and bool, [requests]."""
        self.tokens = tokens
        self._host = torch.stack((tokens, finite.long())).to("cpu", non_blocking=True)
        self._copied = None
        if tokens.device.type == "cuda":
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def read(self) -> list[Sample]:
        """The samples; waits for them alone, not for what the device was given to do since."""
        if self._copied is not None:
            self._copied.synchronize()
        tokens, finite = self._host.tolist()
        return [Sample(token) if ok else Sample(error=_NOT_FINITE) for token, ok in zip(tokens, finite, strict=True)]


def choose(logits: Tensor, works: Sequence[Work]) -> Choice:
    """Choose the token at `stop` of each work from its row of `logits`, [works, vocabulary], any float type.

    A row that is not finite gives that request an error and touches no other.
    """
    logits = _ban_stops(logits.float(), works)
    best = logits.max(dim=-1)
    tokens = best.indices
    drawn = [row for row, work in enumerate(works) if not work.request.params.greedy]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        chosen = _draw(logits[rows], [works[row] for row in drawn])
        tokens = tokens.index_copy(0, rows, chosen)
    return Choice(tokens, best.values.isfinite())


def probabilities(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """The distributions that tokens are drawn from: temperature, then top-k, top-p, min-p. [requests, vocabulary].

    Not normalised after the filters: what they cut off is 0. The likeliest token is never cut off.
    """
    params = [request.params for request in requests]

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=logits.device, dtype=torch.float32)[:, None]

    # The maximum is taken away first, so that no temperature can make an infinity.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / column([p.temperature for p in params]).clamp_min(1e-30)
    vocabulary = logits.shape[-1]
    top_k = [min(p.top_k or vocabulary, vocabulary) for p in params]
    if min(top_k) < vocabulary:
        widest = max(k for k in top_k if k < vocabulary)
        best = scaled.topk(widest, dim=-1).values
        last = torch.tensor([min(k, widest) - 1 for k in top_k], device=logits.device)[:, None]
        limited = torch.tensor([k < vocabulary for k in top_k], device=logits.device)[:, None]
        scaled = scaled.masked_fill(limited & (scaled < best.gather(1, last)), float("-inf"))
    weights = scaled.softmax(dim=-1)
    if any(p.top_p < 1 for p in params):
        weights = _cut_tail(weights, column([p.top_p for p in params]))
    if any(p.min_p > 0 for p in params):
        floor = column([p.min_p for p in params]) * weights.amax(dim=-1, keepdim=True)
        weights = weights.masked_fill(weights < floor, 0.0)
    return weights


def _cut_tail(weights: Tensor, top_p: Tensor) -> Tensor:
    """Keep the likeliest tokens until they come to `top_p`, the one that reaches it among them."""
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    cut = (before >= top_p) & (top_p < 1)
    cut[:, 0] = False
    return weights.masked_fill(torch.zeros_like(cut).scatter_(1, order, cut), 0.0)


def _draw(logits: Tensor, works: Sequence[Work]) -> Tensor:
    cumulative = probabilities(logits, [work.request for work in works]).cumsum(dim=-1, dtype=torch.float64)
    points = [uniform(work.request.seed, work.stop) for work in works]
    targets = torch.tensor(points, device=logits.device, dtype=torch.float64)[:, None] * cumulative[:, -1:]
    # The first token whose cumulative weight is above the target: one of weight 0 can't be it. Where there is a NaN the
    # search may end behind the last token, and the next step must find an embedding for whatever is drawn.
    return torch.searchsorted(cumulative, targets, right=True).squeeze(1).clamp_max(logits.shape[-1] - 1)


def _ban_stops(logits: Tensor, works: Sequence[Work]) -> Tensor:
    """Where a request has fewer than its `min_tokens`, make the tokens that would end it impossible."""
    banned = [
        (row, token)
        for row, work in enumerate(works)
        if work.stop - len(work.request.prompt_token_ids) < work.request.params.min_tokens
        for token in work.request.stop_ids
        if token < logits.shape[-1]
    ]
    if not banned:
        return logits
    rows, tokens = torch.tensor(banned, device=logits.device).T
    logits = logits.clone()
    logits[rows, tokens] = float("-inf")
    return logits
