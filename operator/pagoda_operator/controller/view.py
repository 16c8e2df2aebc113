"""The view of the cluster: which kinds there are to see, the watch over them, and what may not be seen.

A cluster's kinds come and go with what is installed, a role may lack a verb, and a watch layer may end. None of that
ends the operator: it is found out here, again and again, and told to the reconciles as facts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, NoReturn

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import ClusterError, Forbidden, NotFound
from pagoda_operator.cluster.interface import Cluster, WatchEvent
from pagoda_operator.cluster.resources import CHILDREN, DEPLOYMENT, INFERENCE_SERVICE, NODE, OPTIONAL, POD, Resource
from pagoda_operator.controller.cluster_facts import ClusterFacts
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.queue import WorkQueue
from pagoda_operator.controller.sources import Source, WatchFailed
from pagoda_operator.controller.store import Store
from pagoda_operator.controller.sweep import Sweep

logger = logging.getLogger(__name__)

KINDS: Final = (INFERENCE_SERVICE, *CHILDREN, POD, NODE)
WATCH: Final = "the watch"
"""Stands for the kinds in what can't be read, since kopf does not say which one it was."""
DISCOVERY: Final = 60.0
UNREADABLE_PAUSE: Final = 5.0
WATCH_PAUSE: Final = 1.0
WATCH_PROVEN: Final = 30.0
"""Seconds: between two discoveries, after a cluster that could not be read, after a watch layer that ended; and after
which one that was forbidden is taken to be allowed again, since kopf has given up by then."""
TOGETHER: Final = 0.2
"""Seconds that what children and pods tell waits for more of it; longer where it has just been looked at."""


class ClusterView:
    """Keeps the store as the cluster is, and queues the services that a change concerns.

    `discover` and `prime` before anything is planned; `watch` from in between them, and `sweep` after them, for ever.
    What can't be seen is not missing in silence: `facts.unreadable` has it, until it can be seen again.
    """

    def __init__(
        self,
        cluster: Cluster,
        source: Source,
        store: Store,
        queue: WorkQueue[ServiceKey],
        *,
        facts: ClusterFacts,
        metrics: OperatorMetrics,
        namespaces: Sequence[str],
    ) -> None:
        self._cluster = cluster
        self._source = source
        self._store = store
        self._queue = queue
        self._facts = facts
        self._metrics = metrics
        self._sweep = Sweep(cluster, store, queue.add_all, namespaces)

    async def discover(self) -> bool:
        """Find out which optional kinds there are; returns whether that changed."""
        served = {resource.kind: await self._served(resource) for resource in OPTIONAL}
        found = frozenset(kind for kind, is_served in served.items() if is_served)
        changed, self._facts.served = found != self._facts.served, found
        return changed

    async def prime(self) -> None:
        """Read the cluster once, however long that takes: without its CRD and API server there is nothing to do."""
        while True:
            try:
                for resource in self._watchable():
                    await self._read(resource)
            except NotFound:
                logger.error("the cluster has no %s; install Pagoda's CRD", INFERENCE_SERVICE)
            except ClusterError as error:
                logger.warning("the cluster can't be read: %s", error)
            else:
                return
            await asyncio.sleep(UNREADABLE_PAUSE)

    async def watch(self) -> NoReturn:
        """Run the source, and run it anew when it ended, or when there are other kinds to watch.

        Raises what ended it where that was not WatchFailed.
        """
        while True:
            resources = self._watchable()
            source = asyncio.create_task(self._source.run(resources, self._take, self._sweep.soon), name="source")
            try:
                changed = await self._until_changed(source)
            finally:
                source.cancel()
                await asyncio.wait([source])
            if changed:  # the end of a kind that is gone now would be no failure
                logger.info("watching %s", ", ".join(map(str, self._watchable())))
            elif isinstance(failure := source.exception(), WatchFailed):
                logger.warning("%s; it is run anew", failure)
                self._metrics.watch_failed()
                if failure.status == HTTPStatus.FORBIDDEN:
                    self._facts.unreadable[WATCH] = str(failure)
                await asyncio.sleep(WATCH_PAUSE)
            else:
                await source  # raises what ended it
            self._sweep.soon()
            self._queue.add_all(self._store.services())

    async def sweep(self) -> NoReturn:
        """Look for what the watch has missed. Raises WatchSilent."""
        await self._sweep.run(self._readable)

    def _watchable(self) -> tuple[Resource, ...]:
        """All kinds that this cluster has and shows."""
        served = self._facts.served
        return tuple(kind for kind in self._readable() if kind not in OPTIONAL or kind.kind in served)

    def _readable(self) -> tuple[Resource, ...]:
        return tuple(kind for kind in KINDS if str(kind) not in self._facts.unreadable)

    def _take(self, event: WatchEvent) -> None:
        """Take an event in. An edit is looked at before anything else; what children and pods tell comes in flocks, and
        is looked at together, but for what makes a service Ready or ends that."""
        for key in self._store.observe(event):
            if event.resource == INFERENCE_SERVICE:
                self._queue.add(key, first=_is_edit(event.object))
            elif event.resource == DEPLOYMENT and _is_turn(self._store.service(key), event.object):
                self._queue.add_after(key, TOGETHER)
            else:
                self._queue.add_soon(key, TOGETHER)

    async def _served(self, resource: Resource) -> bool:
        try:
            return await self._cluster.served(resource)
        except ClusterError as error:
            logger.warning("discovery of %s: %s", resource, error)
            return resource.kind in self._facts.served

    async def _until_changed(self, source: asyncio.Task[None]) -> bool:
        """Wait until the source ends or there are other kinds to watch; returns whether it was the latter."""
        while True:
            blind = bool(self._facts.unreadable)
            ended = bool((await asyncio.wait([source], timeout=WATCH_PROVEN if blind else DISCOVERY))[0])
            if not ended and self._facts.unreadable.pop(WATCH, None) is not None:
                self._queue.add_all(self._store.services())
            changed = await self.discover() | await self._read_again()
            if changed or ended:
                return changed

    async def _read(self, resource: Resource) -> None:
        """Read a kind into the store. One that may not be read is a fact, which every service's status tells."""
        try:
            await self._sweep.prime(resource)
        except Forbidden as error:
            if resource == INFERENCE_SERVICE:
                raise  # there is no status to tell it in
            logger.error("%s can't be read: %s", resource, error)
            self._facts.unreadable[str(resource)] = error.message
        else:
            self._facts.unreadable.pop(str(resource), None)
            self._metrics.follow_watch(resource, partial(self._sweep.age, resource))

    async def _read_again(self) -> bool:
        """Try what could not be read; returns whether some of it can be now."""
        before = [resource for resource in KINDS if str(resource) in self._facts.unreadable]
        for resource in before:
            try:
                await self._read(resource)
            except ClusterError as error:
                logger.warning("%s can't be read: %s", resource, error)
        return any(str(resource) not in self._facts.unreadable for resource in before)


def _is_edit(service: Object) -> bool:
    """Whether a service has a status of another generation: its user waits, while a new one has to wait its turn."""
    told = service.get("status", {}).get("observedGeneration")
    return told is not None and told != service["metadata"].get("generation")


def _is_turn(service: Object | None, deployment: Object) -> bool:
    """Whether a service has replicas that answer, and its status says that it has none; or the other way round."""
    told = (service or {}).get("status", {}).get("readyReplicas")
    return bool(told) != bool(deployment.get("status", {}).get("readyReplicas"))
