"""What a pod answers when it is asked how it is: its progress on the way to ready, its numbers when it serves.

Any image may stand behind a pod's port, so that nothing is believed of an answer before it was looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from pagoda_engine.contract import METRICS_PATH, READY_PATH, Metric, Progress, Stage
from pagoda_operator.core.facts import PodReport

DOCUMENT_LIMIT: Final = 16 << 10
"""Bytes that a progress document may have."""
SERVES: Final = Progress(Stage.READY)
"""How far a pod is that serves; one for all of them, since there are thousands."""
MOST: Final = 1e9
"""Requests of one pod: beyond, it is no engine that answers."""

Fetch = Callable[[str], Awaitable[tuple[int, bytes]]]
"""GET a URL: status and body. Raises OSError, EOFError, TimeoutError or ValueError where there is no answer."""
NO_ANSWER: Final = (OSError, EOFError, TimeoutError, ValueError, RecursionError)
"""What asking raises where a pod is between two containers, or has another engine's image."""


async def numbers(url: str, fetch: Fetch) -> PodReport:
    """The load of a pod that serves; what its metrics do not tell is None. Raises one of `NO_ANSWER`."""
    status, body = await fetch(url + METRICS_PATH)
    if status != 200:
        raise ValueError(f"{METRICS_PATH} answered {status}")
    text = body.decode(errors="replace")
    return PodReport(SERVES, waiting=gauge(text, Metric.WAITING), running=gauge(text, Metric.RUNNING))


async def progress(url: str, fetch: Fetch) -> PodReport:
    """How far a pod is that does not serve (yet, or any more). Raises one of `NO_ANSWER`."""
    _, body = await fetch(url + READY_PATH)
    return PodReport(progress=document(body))


def gauge(text: str, name: str) -> int | None:
    """The sum of a gauge over its labels in Prometheus' text format, or None where it has no finite value.

    Raises ValueError on a value that is no number, and on more than anybody can count.
    """
    finite = [value for value in _values(text, name) if math.isfinite(value)]
    if abs(total := sum(finite)) > MOST:
        raise ValueError(f"{name} is {total:g}")
    return round(total) if finite else None


def document(body: bytes) -> Progress:
    """The document of /ready. Raises ValueError, and RecursionError where it is nested too deeply."""
    if len(body) > DOCUMENT_LIMIT:
        raise ValueError(f"{len(body)} bytes are no progress document")
    return Progress.from_json(body)


def _values(text: str, name: str) -> Iterator[float]:
    """Of each line of a metric; a page is long, and to look for the name is a tenth of the work of reading it."""
    line = re.compile(rf"{re.escape(name)}(?:{{.*}})?[ \t]+(\S+)")
    at = text.find(name)
    while at >= 0:
        if (at == 0 or text[at - 1] == "\n") and (match := line.match(text, at)):
            yield float(match[1])
        at = text.find(name, at + len(name))
