"""Whether a request that would fit now should run: only if those that run will soon leave room for it to grow.

Who is let in too early is thrown out again, with all that was computed for it. Nor is it wise to keep room for the
longest answer that each request might give, since most end long before. So the most blocks that will be held at once
is forecast from the answers that ended lately, as in R. Gong et al., "Past-Future Scheduler for LLM Serving under SLA
Guarantees" (ASPLOS 2025); but not up to the last answer's end. What is thrown out costs one computation of its tokens,
many at a time, and what it generated until then is kept: it was worth while if it ran for about as many steps as it has
tokens. A forecast without this horizon leaves a third of the steps' places empty to save the last preemptions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.request import Request

_WINDOW: Final = 256  # answers: few enough to follow the hour of the day, enough for a distribution
_FIRST_GUESS: Final = 64  # tokens, while no answer has ended
_GOLDEN: Final = 0.6180339887498949  # multiples of it, without their whole part, are spread evenly from 0 to 1


class Admission:
    """Decides who may start. Has to be told of everyone who starts and who leaves."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._answers = AnswerLengths()
        self._promised = 0  # blocks that all who run take if each gives its longest answer

    def allows(self, request: Request, new: int, free: int, running: Sequence[Request]) -> bool:
        """Whether a request may start, which takes `new` of the `free` blocks now. Alone it always may if it fits."""
        if new > free:
            return False
        if not running or self._promised + self._longest(request) <= self._pool.num_blocks:
            return True
        horizon = len(request.tokens)
        forecast = [(self._growth(one, horizon), len(one.blocks) - one.shared) for one in running]
        held = sum(blocks for _, blocks in forecast)
        return peak([*forecast, (self._growth(request, horizon), new)]) <= held + free

    def entered(self, request: Request) -> None:
        self._promised += self._longest(request)

    def left(self, request: Request) -> None:
        self._promised -= self._longest(request)

    def answered(self, tokens: int) -> None:
        """An answer has ended after so many tokens, for whatever reason."""
        self._answers.note(tokens)

    def _longest(self, request: Request) -> int:
        return self._pool.blocks_for(request.longest)

    def _growth(self, request: Request, horizon: int) -> int:
        """Blocks that a request is expected to fill in the next `horizon` steps, a started one counting as whole."""
        remaining = self._answers.remaining(request.num_generated, request.turn[1] * _GOLDEN % 1)
        return self._pool.blocks_for(min(remaining, request.longest - len(request.tokens), horizon))


class AnswerLengths:
    """Lengths of the latest answers, in tokens."""

    def __init__(self) -> None:
        self._latest: deque[int] = deque(maxlen=_WINDOW)
        self._ordered: list[int] = []

    def note(self, length: int) -> None:
        if len(self._latest) == _WINDOW:
            del self._ordered[bisect_left(self._ordered, self._latest[0])]
        self._latest.append(length)
        insort(self._ordered, length)

    def remaining(self, generated: int, quantile: float) -> int:
        """How many tokens follow after `generated`, by this quantile (0 to 1) of the answers that got that far.

        Each request keeps a quantile of its own. A mean for all would let them end together in the forecast, all at
        their longest, and keep others waiting for nothing. Where no answer got that far, this one is expected to go on
        for as long as it has, and at its start for `_FIRST_GUESS`.
        """
        shorter = bisect_right(self._ordered, generated)
        longer = len(self._ordered) - shorter
        if not longer:
            return generated or _FIRST_GUESS
        return self._ordered[shorter + int(quantile * longer)] - generated


def peak(requests: Iterable[tuple[int, int]]) -> int:
    """The most blocks held at once, from now on, by requests of (blocks to come, blocks held), each freed at its end.

    All grow alike, so the peak is at one of the ends: when a request ends, those with more to come have grown by as
    much as it has, and the others are gone.
    """
    most = held = 0
    for count, (growth, blocks) in enumerate(sorted(requests, reverse=True), 1):
        held += blocks
        most = max(most, held + count * growth)
    return most
