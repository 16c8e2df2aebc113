"""What was measured of a batch of answers, in the words that engines are compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Answer:
    """One request as its client saw it, in seconds of one clock: when it was sent, and when tokens arrived.

    `arrivals` has a time for each message that brought at least one token; `tokens` counts all of them.
    """

    sent: float
    arrivals: tuple[float, ...]
    tokens: int

    @property
    def time_to_first_token(self) -> float:
        return self.arrivals[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """The times between one message and the next."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds."""

    mean: float
    p50: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Latency:
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("there is nothing to summarise")
        return cls(sum(values) / len(values), _nearest_rank(values, 0.5), _nearest_rank(values, 0.99))


@dataclass(frozen=True, slots=True)
class Summary:
    """A batch of answers. `seconds` run from the first request's start to the last token's arrival."""

    requests: int
    output_tokens: int
    seconds: float
    time_to_first_token: Latency
    inter_token_latency: Latency | None
    """None where no answer has a second message: short answers of a fast server come whole."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Summary:
        gaps = [gap for answer in answers for gap in answer.gaps]
        return cls(
            requests=len(answers),
            output_tokens=sum(answer.tokens for answer in answers),
            seconds=max(answer.arrivals[-1] for answer in answers) - min(answer.sent for answer in answers),
            time_to_first_token=Latency.of([answer.time_to_first_token for answer in answers]),
            inter_token_latency=Latency.of(gaps) if gaps else None,
        )

    @property
    def tokens_per_second(self) -> float:
        return self.output_tokens / self.seconds


def _nearest_rank(values: Sequence[float], share: float) -> float:
    """The least of the values that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
