"""`spec.autoscaling.schedule`: how many replicas there are at least, by the clock.

The operator reads the clock, for KEDA and for an HPA alike, and writes the bound into whichever scaler there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from pagoda_operator.api.autoscaling import Autoscaling, ScheduleEntry


@dataclass(frozen=True, slots=True)
class Floor:
    """`min_replicas` holds until `until`, or for good. `problems` are entries that can't be used, each a sentence."""

    min_replicas: int
    until: datetime | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Window:
    """One entry at one moment: whether it holds, and when that turns."""

    open: bool
    until: datetime


def floor(autoscaling: Autoscaling, now: datetime) -> Floor:
    """The fewest replicas at `now` (timezone-aware): of `minReplicas` and all entries that hold, the largest.

    An entry that can't be used is left out, so that a slip in a schedule never stops a service.
    """
    least, until, problems = autoscaling.min_replicas, None, []
    for index, entry in enumerate(autoscaling.schedule):
        try:
            window = _window(entry, now)
        except ValueError as error:
            problems.append(f"spec.autoscaling.schedule[{index}].{error}")
            continue
        if window.open:
            least = max(least, entry.min_replicas)
        until = window.until if until is None else min(until, window.until)
    return Floor(least, until, tuple(problems))


def _window(entry: ScheduleEntry, now: datetime) -> _Window:
    """An entry holds while its end comes before its next start. Raises ValueError naming field, value and fix."""
    start = _next(entry.start, "start", entry.timezone, now)
    end = _next(entry.end, "end", entry.timezone, now)
    return _Window(open=end < start, until=min(start, end))


def _next(cron: str, field: str, timezone: str, now: datetime) -> datetime:
    """The first moment after `now`, in UTC."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        # OSError: a folder of the zone database, `Europe`.
        raise ValueError(f"timezone is {timezone!r}; use a name of the IANA database, such as Europe/Berlin") from None
    try:
        return next(CronSim(cron, now.astimezone(zone))).astimezone(UTC)
    except CronSimError as error:
        fields = "minute hour day-of-month month day-of-week"
        raise ValueError(f"{field} is {cron!r}: {error}; use five cron fields, {fields}") from None
    except StopIteration:
        raise ValueError(f"{field} is {cron!r}, which never comes; use a day that its month has") from None
