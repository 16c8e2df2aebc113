"""Likings and dislikings: a bias by token, and penalties for what prompt and output hold already."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.transfer import upload

Places = tuple[Tensor, Tensor]
"""Rows and tokens, int64, of the logits that something is done to."""


def bias(logits: Tensor, works: Sequence[Work]) -> None:
    """Add each request's `logit_bias`, in place. Costs a Python loop over the entries of all biases."""
    rows, tokens, values = array("q"), array("q"), array("d")
    for row, work in enumerate(works):
        wanted = work.request.params.logit_bias
        rows.extend([row] * len(wanted))
        tokens.extend(wanted.keys())
        values.extend(wanted.values())
    if rows:
        at = upload(rows, torch.int64, logits.device), upload(tokens, torch.int64, logits.device)
        logits[at] += upload(values, logits.dtype, logits.device)


def penalise(logits: Tensor, works: Sequence[Work]) -> None:
    """Apply repetition, then presence and frequency penalties, in place, as vLLM does.

    Repetition (Keskar et al. 2019, https://arxiv.org/abs/1909.05858) counts prompt and output, the other two the output
    only. Costs a gather and a scatter as long as the texts of those who ask for it; no table as wide as the vocabulary.
    """
    if found := _occurrences(works, lambda work: work.request.params.repetition_penalty, 1.0, _everything):
        at, factors = _on(logits, *found)
        values = logits[at]
        # A token that occurs twice is written twice, with the same value.
        logits[at] = torch.where(values > 0, values / factors, values * factors)
    if found := _occurrences(works, lambda work: work.request.params.presence_penalty, 0.0, _output):
        at, penalties = _on(logits, *found)
        logits[at] = logits[at] - penalties
    if found := _occurrences(works, lambda work: work.request.params.frequency_penalty, 0.0, _output):
        at, penalties = _on(logits, *found)
        logits.index_put_(at, -penalties, accumulate=True)


def _occurrences(
    works: Sequence[Work], penalty: Callable[[Work], float], neutral: float, text: Callable[[Work], array[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Row, token and penalty for each token of the texts of all works whose penalty is not neutral."""
    asking = [(row, text(work), penalty(work)) for row, work in enumerate(works) if penalty(work) != neutral]
    lengths = [len(tokens) for _, tokens, _ in asking]
    if not sum(lengths):
        return None
    return (
        np.repeat([row for row, _, _ in asking], lengths),
        np.concatenate([np.array(tokens, dtype=np.int64) for _, tokens, _ in asking]),
        np.repeat([value for _, _, value in asking], lengths),
    )


def _on(logits: Tensor, rows: np.ndarray, tokens: np.ndarray, values: np.ndarray) -> tuple[Places, Tensor]:
    device = logits.device
    places = upload(rows, torch.int64, device), upload(tokens, torch.int64, device)
    return places, upload(values, logits.dtype, device)


def _everything(work: Work) -> array[int]:
    return work.request.tokens[: work.stop]


def _output(work: Work) -> array[int]:
    return work.request.tokens[len(work.request.prompt_token_ids) : work.stop]
