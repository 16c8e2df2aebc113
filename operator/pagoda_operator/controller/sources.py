"""Where events come from: one interface, so that the controller can't tell an API server from an in-memory cluster.

`StreamSource` is for a cluster that is its own watch (`cluster.memory`); `controller.watch.KopfSource` for an API
server. Both may repeat themselves and both may be cancelled and run again; the store sorts it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pagoda_operator.cluster.interface import Watchable, WatchEvent
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, NODE, Resource
from pagoda_operator.controller.ownership import MANAGED_BY

Sink = Callable[[WatchEvent], None]
"""Takes an event in; called in the controller's event loop."""
Listed = Callable[[], None]
"""Told that objects came from a listing: what was gone by then is never told of. Called in the same loop."""


class WatchFailed(Exception):
    """The watch layer ended by itself, and can be run again; until then the operator is blind.

    `status` is the HTTP status of the answer that ended it, or None.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Source(Protocol):
    """Feeds events to a sink."""

    async def run(self, resources: Sequence[Resource], sink: Sink, listed: Listed) -> None:
        """Tell of every object of these kinds and of every change after it, until cancelled. Raises WatchFailed."""
        ...


def labels_for(resource: Resource) -> Mapping[str, str]:
    """What a kind is selected by: of the kinds that others use too, only what the operator made."""
    return {} if resource in (INFERENCE_SERVICE, NODE) else MANAGED_BY


def namespaces_for(resource: Resource, namespaces: Sequence[str]) -> Sequence[str | None]:
    """Where a kind is looked for; None is everywhere."""
    return namespaces if resource.namespaced and namespaces else (None,)


class StreamSource:
    """Follows a cluster's own watch; for local mode and tests."""

    def __init__(self, cluster: Watchable, namespaces: Sequence[str] = ()) -> None:
        self._cluster = cluster
        self._namespaces = namespaces

    async def run(self, resources: Sequence[Resource], sink: Sink, listed: Listed) -> None:  # noqa: ARG002
        async with asyncio.TaskGroup() as streams:
            for resource in resources:
                for namespace in namespaces_for(resource, self._namespaces):
                    streams.create_task(self._follow(resource, namespace, sink), name=f"watch {resource}")

    async def _follow(self, resource: Resource, namespace: str | None, sink: Sink) -> None:
        async for event in self._cluster.watch(resource, namespace, labels=labels_for(resource)):
            sink(event)
