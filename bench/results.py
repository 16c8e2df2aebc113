"""What a run of the benchmark comes to: every round as it was, ratios of medians, a document and a table."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pagoda_engine.benchmark.summary import Summary

_MIB: Final = 1 << 20
_DOUBT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """One wave of requests to one system. `cpu_seconds` are of the system's processes, the first one first."""

    experiment: str
    system: str
    concurrency: int
    number: int
    summary: Summary
    cpu_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Alone:
    """A system with the machine to itself: every start's time, then memory without work and under the widest wave."""

    system: str
    seconds_to_ready: tuple[float, ...]
    idle_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number of two systems. `ratio` is the median over pairs of rounds, which lie from `least` to `most`.

    The true median lies from `low` to `high` with a chance of at least 95 %, whatever the distribution; with fewer than
    six pairs there is no such range but the whole one.
    """

    experiment: str
    concurrency: int
    what: str
    ours: float
    theirs: float
    ratio: float
    least: float
    low: float
    high: float
    most: float


@dataclass(slots=True)
class Results:
    """Filled while the benchmark runs."""

    facts: Mapping[str, Any]
    alone: list[Alone] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    def comparisons(self, ours: str, theirs: str) -> list[Comparison]:
        """Two systems in every experiment and concurrency that has rounds of both, in the order of measuring."""
        found = []
        for experiment, concurrency in dict.fromkeys((one.experiment, one.concurrency) for one in self.rounds):
            mine, others = (
                [
                    one.summary
                    for one in sorted(self.rounds, key=lambda one: one.number)
                    if (one.experiment, one.concurrency, one.system) == (experiment, concurrency, system)
                ]
                for system in (ours, theirs)
            )
            if mine and others:
                found += [
                    _compare(experiment, concurrency, what, mine, others)
                    for what, number in _NUMBERS.items()
                    if None not in map(number, (*mine, *others))
                ]
        return found

    def document(self, pairs: Sequence[tuple[str, str]]) -> str:
        """Everything, as JSON. `pairs` are the systems to compare, ours first."""
        return json.dumps(
            {
                **self.facts,
                "comparisons": [
                    {"pair": pair, **dataclasses.asdict(one)} for pair in pairs for one in self.comparisons(*pair)
                ],
                "alone": [dataclasses.asdict(one) for one in self.alone],
                "rounds": [dataclasses.asdict(one) for one in self.rounds],
            },
            indent=1,
        )

    def table(self, pairs: Sequence[tuple[str, str]]) -> str:
        """For people; Markdown, so that it can be quoted."""
        lines = []
        for ours, theirs in pairs:
            lines += [
                "",
                f"| experiment | requests at once | | {ours} | {theirs} | ratio | 95 % | least | most |",
                "|---|---:|---|---:|---:|---:|---:|---:|---:|",
            ]
            lines += [
                f"| {one.experiment} | {one.concurrency} | {one.what} | {one.ours:.1f} | {one.theirs:.1f} "
                f"| {one.ratio:.3f} | {one.low:.3f} to {one.high:.3f} | {one.least:.2f} | {one.most:.2f} |"
                for one in self.comparisons(ours, theirs)
            ]
        lines += ["", "| alone | start to ready, s | memory idle, MiB | memory peak, MiB |", "|---|---:|---:|---:|"]
        lines += [
            f"| {one.system} | {one.seconds_to_ready[-1]:.1f} | {one.idle_bytes / _MIB:.0f} "
            f"| {one.peak_bytes / _MIB:.0f} |"
            for one in self.alone
        ]
        return "\n".join(lines[1:])


def _compare(
    experiment: str, concurrency: int, what: str, ours: Sequence[Summary], theirs: Sequence[Summary]
) -> Comparison:
    number = _NUMBERS[what]
    mine, others = ([number(one) or 0.0 for one in summaries] for summaries in (ours, theirs))
    ratios = sorted(a / b for a, b in zip(mine, others, strict=True))
    outside = _outside(len(ratios))
    return Comparison(
        experiment,
        concurrency,
        what,
        statistics.median(mine),
        statistics.median(others),
        statistics.median(ratios),
        ratios[0],
        ratios[outside],
        ratios[-1 - outside],
        ratios[-1],
    )


def _outside(count: int) -> int:
    """How many of so many sorted values may be left out at each end, so that the median is outside of what remains in
    at most 5 % of all cases: each value is as likely above the true median as below it."""
    left_out, chance = 0, 2.0 ** (1 - count)
    while chance <= _DOUBT:
        left_out += 1
        chance += 2.0 ** (1 - count) * math.comb(count, left_out)
    return max(0, left_out - 1)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


_NUMBERS: Final[Mapping[str, Callable[[Summary], float | None]]] = {
    "output tokens/s": lambda summary: summary.tokens_per_second,
    "TTFT mean, ms": lambda summary: _milliseconds(summary.time_to_first_token.mean),
    "TTFT p50, ms": lambda summary: _milliseconds(summary.time_to_first_token.p50),
    "TTFT p99, ms": lambda summary: _milliseconds(summary.time_to_first_token.p99),
    "ITL p50, ms": lambda summary: _milliseconds(summary.inter_token_latency and summary.inter_token_latency.p50),
    "ITL p99, ms": lambda summary: _milliseconds(summary.inter_token_latency and summary.inter_token_latency.p99),
}
"""None where answers came in one piece: they have no time between tokens."""
