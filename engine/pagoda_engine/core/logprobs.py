"""What the model thought of a token, and of those that it would rather have seen there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Logprobs:
    """One position's log-probabilities, natural logarithms, of the model's own distribution.

    `rank` counts from 1, the likeliest; tokens as likely as this one do not push it back. `top_ids` and `top_logprobs`
    are the likeliest tokens, best first, as many as were asked for.
    """

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]
