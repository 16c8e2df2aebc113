"""When what pods answer is worth a write: a status is no place for numbers that change all the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pagoda_engine.contract import Progress, Stage
from pagoda_operator.core.facts import PodReport

PERCENT_PAUSE: Final = 2.0
QUEUE_PAUSE: Final = 15.0
"""Seconds between two publications for the sake of a percentage, and of a queue."""

Reports = Mapping[str, PodReport]
"""What the pods of one service answered, by name."""


def worth_telling(told: Reports, known: Reports, elapsed: float) -> bool:
    """Whether what is known of a service's pods differs enough from what was told `elapsed` seconds ago."""
    if _phases(told) != _phases(known):
        return True
    if elapsed >= PERCENT_PAUSE and any(_moved(told[pod].progress, known[pod].progress) for pod in known):
        return True
    return elapsed >= QUEUE_PAUSE and (_load(told) != _load(known) or _left(told) != _left(known))


def _phases(reports: Reports) -> dict[str, tuple[Stage | None, bool]]:
    """What each pod is doing, and whether its queue is known: an engine says that it is ready before it is asked."""
    return {
        pod: (report.progress.stage if report.progress else None, report.waiting is not None)
        for pod, report in reports.items()
    }


def _moved(old: Progress | None, new: Progress | None) -> bool:
    if new is not None and new.stage is Stage.DRAINING:
        return False
    if old is None or new is None or old.percent is None or new.percent is None:
        return old != new
    return abs(new.percent - old.percent) >= 1 or old.message != new.message


def _left(reports: Reports) -> dict[str, Progress]:
    """What each pod on its way out has left to do."""
    return {
        pod: report.progress
        for pod, report in reports.items()
        if report.progress is not None and report.progress.stage is Stage.DRAINING
    }


def _load(reports: Reports) -> tuple[int, int]:
    waiting = sum(report.waiting or 0 for report in reports.values())
    return waiting, sum(report.running or 0 for report in reports.values())
