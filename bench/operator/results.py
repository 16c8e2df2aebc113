"""What was measured of one size, and the table of all sizes beside what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """One number of services. Times are seconds where the name does not say otherwise.

    seconds          from the first service's application to the last one's readiness; `bare_seconds` by the bare client
    cpu_ms           the operator's own processor time meanwhile, for each service; so of the bare client's
    requests         of the API server, for each service, until it was Ready; `requests_in_all` until the end of the run
    rss_mib          of the operator's process, at the end
    idle_p95         from the edit of a spec to the write of its child, when nothing else happens
    storm_p95        the same while all the services are made
    steady_writes    in a minute in which nothing happens, the Lease apart; and the processor time in that minute
    calls            the operator's calls for these services by kind
    """

    services: int
    pods: int
    bare_seconds: float
    seconds: float
    bare_cpu_ms: float
    cpu_ms: float
    requests: float
    requests_in_all: float
    rss_mib: float
    idle_p95: float
    storm_p95: float
    steady_writes: int
    steady_cpu_percent: float
    calls: dict[str, int]


_COLUMNS: Final[tuple[tuple[str, Callable[[Row], str], str], ...]] = (
    ("services", lambda row: f"{row.services}", ""),
    ("pods", lambda row: f"{row.pods}", ""),
    ("bare client, s", lambda row: f"{row.bare_seconds:.1f}", ""),
    ("operator, s", lambda row: f"{row.seconds:.1f}", ""),
    ("ratio", lambda row: f"{row.seconds / row.bare_seconds:.2f}", "1.3"),
    ("own CPU a service, ms", lambda row: f"{row.cpu_ms:.1f}", "8"),
    ("requests a service", lambda row: f"{row.requests:.1f}", "7"),
    ("memory, MiB", lambda row: f"{row.rss_mib:.0f}", "120"),
    ("edit to child p95, idle, s", lambda row: f"{row.idle_p95:.2f}", "1"),
    ("in the storm, s", lambda row: f"{row.storm_p95:.2f}", "5"),
    ("steady writes a minute", lambda row: f"{row.steady_writes}", "0"),
    ("steady CPU, % of a core", lambda row: f"{row.steady_cpu_percent:.2f}", "1"),
)


def table(rows: Sequence[Row]) -> str:
    """For people; Markdown, so that it can be quoted. The last line says what is to be reached."""
    lines = [" | ".join(title for title, _, _ in _COLUMNS), "|".join("---:" for _ in _COLUMNS)]
    lines += [" | ".join(show(row) for _, show, _ in _COLUMNS) for row in rows]
    lines.append(" | ".join(limit and f"<= {limit}" for _, _, limit in _COLUMNS))
    return "\n".join(f"| {line} |" for line in lines)
