"""When a service's pods ended, of which the cluster keeps no trace: the scheduler takes a moment to use it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pagoda_operator.api.names import Object
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.core.pods import is_leaving


class Departures:
    """Remembers by service when a pod was last on its way out; nothing of the time before this process."""

    def __init__(self) -> None:
        self._seen: dict[ServiceKey, tuple[datetime, bool]] = {}

    def last(self, key: ServiceKey, pods: Iterable[Object], now: datetime) -> datetime | None:
        """`now` while a pod of the service is on its way out and when it is first seen gone, the same moment after."""
        leaving, (then, were_leaving) = any(map(is_leaving, pods)), self._seen.get(key, (None, False))
        if leaving or were_leaving:
            self._seen[key] = now, leaving
            return now
        return then

    def forget(self, key: ServiceKey) -> None:
        """The service is gone."""
        self._seen.pop(key, None)
