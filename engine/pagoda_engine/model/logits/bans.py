"""Tokens that may not come: all but the allowed ones, what would complete a bad word, an end before `min_tokens`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.transfer import upload

_NEVER = float("-inf")


def too_early(work: Work) -> bool:
    """Whether the token that a work samples may not end its request yet."""
    request = work.request
    generated = work.stop - len(request.prompt_token_ids)
    return generated < request.params.min_tokens and bool(request.stop_ids)


def ban(logits: Tensor, works: Sequence[Work]) -> None:
    """Make what each work's request must not have impossible, in place; row i of `logits` is `works[i]`'s.

    Costs a Python loop over allowed ids, bad words and, before `min_tokens`, stop tokens; nothing where there are none.
    """
    _allow(logits, works)
    rows, tokens = array("q"), array("q")
    for row, work in enumerate(works):
        for token in _banned(work, logits.shape[-1]):
            rows.append(row)
            tokens.append(token)
    if rows:
        at = upload(rows, torch.int64, logits.device), upload(tokens, torch.int64, logits.device)
        logits[at] = _NEVER


def _allow(logits: Tensor, works: Sequence[Work]) -> None:
    rows, tokens, limited = array("q"), array("q"), array("q")
    for row, work in enumerate(works):
        allowed = work.request.params.allowed_token_ids
        if allowed is not None:
            limited.append(row)
            rows.extend([row] * len(allowed))
            tokens.extend(allowed)
    if limited:
        at = upload(rows, torch.int64, logits.device), upload(tokens, torch.int64, logits.device)
        kept = logits[at]
        logits.index_fill_(0, upload(limited, torch.int64, logits.device), _NEVER)
        logits[at] = kept


def _banned(work: Work, vocabulary: int) -> Iterator[int]:
    request = work.request
    if too_early(work):
        # A config may name an end that the model has no logit for.
        yield from (token for token in request.stop_ids if token < vocabulary)
    for *before, last in request.params.bad_token_ids:
        if _ends_with(request, work.stop, before):
            yield last


def _ends_with(request: Request, position: int, tokens: list[int]) -> bool:
    """Whether these tokens, all of them generated, stand just before `position`."""
    start = position - len(tokens)
    return start >= len(request.prompt_token_ids) and list(request.tokens[start:position]) == tokens
