"""Log-probabilities of chosen tokens and of the likeliest ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pagoda_engine.core.logprobs import Logprobs


@dataclass(frozen=True, slots=True)
class Scores:
    """On the device, for each of some rows of logits: see `core.logprobs.Logprobs`.

    `tokens`, `logprobs`, `ranks`, `totals` [rows]; `top_ids`, `top_logprobs` [rows, most]. A row whose total, the
    logarithm of the sum of its exponentials, is not finite has no probabilities.
    """

    tokens: Tensor
    logprobs: Tensor
    ranks: Tensor
    totals: Tensor
    top_ids: Tensor
    top_logprobs: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.tokens, self.logprobs, self.ranks, self.totals, self.top_ids, self.top_logprobs


def score(logits: Tensor, tokens: Tensor, most: int) -> Scores:
    """Score `tokens`, int64 [rows], in their rows of `logits`, float32 [rows, vocabulary], beside the `most` likeliest.

    Costs a sum of exponentials over the vocabulary, a comparison with all of it, and a partial sort of `most`.
    """
    totals = logits.logsumexp(dim=-1)
    own = logits.gather(1, tokens[:, None])
    top = logits.topk(min(most, logits.shape[-1]), dim=-1)
    return Scores(
        tokens=tokens,
        logprobs=own.squeeze(1) - totals,
        ranks=(logits > own).sum(dim=-1) + 1,
        totals=totals,
        top_ids=top.indices,
        top_logprobs=top.values - totals[:, None],
    )


def read_scores(lists: Sequence[list[Any]], counts: Sequence[int]) -> Iterator[Logprobs | None]:
    """`Scores.tensors`, as lists, by row, with `counts[row]` of the likeliest; None for a row without probabilities."""
    for token, logprob, rank, total, ids, values, count in zip(*lists, counts, strict=True):
        yield Logprobs(token, logprob, rank, ids[:count], values[:count]) if math.isfinite(total) else None
