"""What a new replica takes until it answers, learned from those that did."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.api.status import ColdStart
from pagoda_operator.builders.pod import ENGINE_CONTAINER, MODEL_CONTAINER
from pagoda_operator.core.pods import is_leaving, is_ready

REMEMBERED: Final = 5
"""Starts. Two odd ones (one waited for a node, one lost its readiness for a while) do not move a median of five."""


def cold_starts(pods: Iterable[Object], before: Iterable[ColdStart]) -> tuple[ColdStart, ...]:
    """The latest starts, the newest first: those known before, and those of pods that became ready since."""
    known = {start.pod: start for start in before}
    # A pod that was there before those became ready may have become ready long ago, and only once more since.
    since = min(start.ready for start in known.values()) if len(known) >= REMEMBERED else ""
    young = [pod for pod in pods if pod["metadata"].get("creationTimestamp", "") > since]
    new = [start for pod in young if pod["metadata"]["name"] not in known and (start := _start(pod)) is not None]
    return tuple(sorted([*known.values(), *new], key=lambda start: (start.ready, start.pod), reverse=True)[:REMEMBERED])


def cold_start_seconds(starts: Iterable[ColdStart]) -> int | None:
    """The median of starts; None where there was none yet."""
    seconds = [start.seconds for start in starts]
    return statistics.median_low(seconds) if seconds else None


def _start(pod: Object) -> ColdStart | None:
    """How a pod started; None for one that is not ready, or was ready before (its container was started again)."""
    status = pod.get("status", {})
    restarts = sum(
        c.get("restartCount", 0) for c in status.get("containerStatuses", []) if c["name"] == ENGINE_CONTAINER
    )
    ready = next((c.get("lastTransitionTime") for c in status.get("conditions", []) if c["type"] == "Ready"), None)
    created = pod["metadata"].get("creationTimestamp")
    if not is_ready(pod) or is_leaving(pod) or restarts or not ready or not created:
        return None
    seconds = _between(created, ready) - _downloading(status)
    return ColdStart(pod=pod["metadata"]["name"], ready=ready, seconds=max(0, round(seconds)))


def _downloading(status: Object) -> float:
    """Seconds that the model's download took: it is paid once, and the next replica finds the cache full."""
    pulls = [
        c.get("state", {}).get("terminated")
        for c in status.get("initContainerStatuses", [])
        if c["name"] == MODEL_CONTAINER
    ]
    return sum(_between(pull["startedAt"], pull["finishedAt"]) for pull in pulls if pull and "startedAt" in pull)


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
