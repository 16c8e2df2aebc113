"""The controller: one object that ties watch, queue, reconcile and report together, and runs until it is cancelled.

It knows neither kopf nor an API server: `pagoda operator` gives it a `KubernetesCluster` and a `KopfSource`,
`pagoda local up` an in-memory cluster and a `StreamSource` over the same:

    cluster = MemoryCluster(...)
    controller = Controller(cluster, StreamSource(cluster), Settings(local=True, bind_host="$(POD_IP)"))
    task = asyncio.create_task(controller.run())     # cancel it to stop; nothing is left behind
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import platform
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, NoReturn

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import ClusterError, Conflict, Forbidden, NotFound, Unavailable
from pagoda_operator.cluster.interface import Cluster, WatchEvent
from pagoda_operator.cluster.resources import CHILDREN, INFERENCE_SERVICE, NODE, OPTIONAL, POD, Resource
from pagoda_operator.controller.api_service import ApiServiceKeeper
from pagoda_operator.controller.events import EventRecorder
from pagoda_operator.controller.lease import LeaseElector
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.controller.models import Inspect, ModelReader
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.queue import WorkQueue
from pagoda_operator.controller.reconcile import Planner, Reconciler
from pagoda_operator.controller.scrape import Fetch, Scraper
from pagoda_operator.controller.sources import Source, WatchFailed
from pagoda_operator.controller.store import Store
from pagoda_operator.controller.sweep import Sweep
from pagoda_operator.controller.tenants import Tenants
from pagoda_operator.controller.vigil import Vigil
from pagoda_operator.core.plan import plan
from pagoda_operator.core.settings import Settings

logger = logging.getLogger(__name__)

KINDS: Final = (INFERENCE_SERVICE, *CHILDREN, POD, NODE)
WATCH: Final = "the watch"
"""Stands for the kinds in what can't be read, since kopf does not say which one it was."""
WORKERS: Final = 16
RESYNC: Final = 600.0
DISCOVERY: Final = 60.0
UNREADABLE_PAUSE: Final = 5.0
WATCH_PAUSE: Final = 1.0
WATCH_PROVEN: Final = 30.0
"""Seconds: between two looks at every service without an event, between two discoveries, after a cluster that could
not be read, after a watch layer that ended; and after which one that was forbidden is taken to be allowed again, since
kopf has given up by then."""
RECONCILE_LIMIT: Final = 120.0
"""Seconds after which a reconcile is given up and tried again: a call that hangs must not hold its service for ever."""
OUTAGE_DELAY: Final = 30.0
RACE_DELAY: Final = 1.0
"""Longest back-off in seconds where the API server is to blame and not the service; where others were faster."""
TOGETHER: Final = 0.2
"""Seconds that what children and pods tell waits for more of it."""
SHORTEST_REQUEUE: Final = 0.5
FIRST_ANSWERS: Final = 10.0
"""Seconds that a new leader waits at most until all pods have been asked."""


class LeadershipLost(Exception):
    """Another operator leads, or may: this one must not write any more."""


class Controller:
    """Keeps every InferenceService of a cluster (of some namespaces) as its spec wants it.

    `elector` None leads at once. `external_metrics`: the leader asks for that API group, for scalers to read.
    `planner`, `inspect` and `fetch` decide, read models and ask pods; the defaults are `core.plan.plan`,
    `pagoda inspect` and HTTP.
    """

    def __init__(
        self,
        cluster: Cluster,
        source: Source,
        settings: Settings,
        *,
        namespaces: Sequence[str] = (),
        elector: LeaseElector | None = None,
        metrics: OperatorMetrics | None = None,
        external_metrics: ApiServiceKeeper | None = None,
        planner: Planner = plan,
        inspect: Inspect | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.store = Store()
        self.queue: WorkQueue[ServiceKey] = WorkQueue()
        self.ready = False
        """Whether the cluster has been read once."""
        self._cluster = cluster
        self._source = source
        self._elector = elector
        self._external_metrics = external_metrics
        self._metrics = metrics or OperatorMetrics()
        self._models = ModelReader(cluster, self.queue.add, inspect=inspect)
        self.loads = ServiceLoads(self.store)
        """The services' loads, for scalers to ask, also while another instance leads."""
        self._scraper = Scraper(self.store, self.queue.add, self.loads, fetch=fetch)
        self._sweep = Sweep(cluster, self.store, self._look_at, namespaces)
        self._tenants = Tenants(cluster, self.store, namespaces)
        self._reconciler = Reconciler(
            cluster,
            self.store,
            planner,
            settings,
            models=self._models,
            scraper=self._scraper,
            loads=self.loads,
            tenants=self._tenants,
            recorder=EventRecorder(cluster, instance=platform.node()),
            backlog=self.queue.__len__,
        )
        self._vigil = Vigil(cluster, self._reconciler.writer.held, self._place_is_free)
        self._metrics.follow(
            depth=lambda: len(self.queue),
            longest=self.queue.longest_in_hand,
            services=lambda: len(self.store.services()),
        )
        self._metrics.follow_loads(self.loads.known)

    async def run(self) -> NoReturn:
        """Run until cancelled; the Lease is released on the way out.

        Raises LeadershipLost, WatchSilent: start the process again.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._discover()
                tasks.create_task(self._watch(), name="watch")
                await self._prime()
                tasks.create_task(self._sweep.run(self._readable), name="sweep")
                tasks.create_task(self._scraper.run(), name="scrape")
                if self._external_metrics is not None:
                    tasks.create_task(self._external_metrics.serving.run(), name="certificates")
                if self._elector is not None:
                    logger.info("waiting to lead as %s", self._elector.identity)
                    await self._elector.acquire()
                    tasks.create_task(self._lead(self._elector), name="lease")
                logger.info("leading")
                self._metrics.leading(True)
                # A first status without what the pods say would take back what the last operator had written.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._scraper.asked_all.wait(), FIRST_ANSWERS)
                if self._external_metrics is not None:
                    await self._take_external_metrics(self._external_metrics)
                    tasks.create_task(self._hold_external_metrics(self._external_metrics), name="external metrics")
                tasks.create_task(self._tenants.run(), name="tenants")
                tasks.create_task(self._vigil.run(), name="vigil")
                for number in range(WORKERS):
                    tasks.create_task(self._work(), name=f"worker {number}")
                tasks.create_task(self._resync(), name="resync")
        except BaseExceptionGroup as group:
            # The first cause is the one to tell; the others are what it brought down.
            raise group.exceptions[0] from None
        finally:
            self._metrics.leading(False)
            self.queue.close()
            await self._models.close()
            if self._elector is not None:
                await self._elector.release()
        raise AssertionError("its tasks never end by themselves")

    def stuck(self) -> str | None:
        """Why this process must be started again, or None: for a liveness probe, so never the API server's doing."""
        longest = self.queue.longest_in_hand()
        return f"a reconcile has not ended for {longest:.0f} s" if longest > 2 * RECONCILE_LIMIT else None

    def _look_at(self, keys: Iterable[ServiceKey]) -> None:
        for key in keys:
            self.queue.add(key)

    def _place_is_free(self, key: ServiceKey, kind: str, name: str) -> None:
        self._reconciler.writer.retry(key, kind, name)
        self.queue.add(key)

    def _take(self, event: WatchEvent) -> None:
        """Take an event in. An edit is looked at before anything else; what children and pods tell comes in flocks, and
        is looked at together."""
        for key in self.store.observe(event):
            if event.resource != INFERENCE_SERVICE:
                self.queue.add_after(key, TOGETHER)
            else:
                self.queue.add(key, first=_is_edit(event.object))

    def _resources(self) -> tuple[Resource, ...]:
        """The kinds to watch: all that this cluster has and shows."""
        served = self._reconciler.served
        return tuple(kind for kind in self._readable() if kind not in OPTIONAL or kind.kind in served)

    def _readable(self) -> tuple[Resource, ...]:
        return tuple(kind for kind in KINDS if str(kind) not in self._reconciler.unreadable)

    async def _discover(self) -> bool:
        """Find out which optional kinds there are; returns whether that changed."""
        served = {resource.kind: await self._served(resource) for resource in OPTIONAL}
        found = frozenset(kind for kind, is_served in served.items() if is_served)
        changed, self._reconciler.served = found != self._reconciler.served, found
        return changed

    async def _served(self, resource: Resource) -> bool:
        try:
            return await self._cluster.served(resource)
        except ClusterError as error:
            logger.warning("discovery of %s: %s", resource, error)
            return resource.kind in self._reconciler.served

    async def _watch(self) -> NoReturn:
        """Run the source, and run it anew when it ended, or when there are other kinds to watch."""
        while True:
            resources = self._resources()
            source = asyncio.create_task(self._source.run(resources, self._take, self._sweep.soon), name="source")
            try:
                changed = await self._until_changed(source)
            finally:
                source.cancel()
                await asyncio.wait([source])
            if changed:  # the end of a kind that is gone now would be no failure
                logger.info("watching %s", ", ".join(map(str, self._resources())))
            elif isinstance(failure := source.exception(), WatchFailed):
                logger.warning("%s; it is run anew", failure)
                self._metrics.watch_failed()
                if failure.status == HTTPStatus.FORBIDDEN:
                    self._reconciler.unreadable[WATCH] = str(failure)
                await asyncio.sleep(WATCH_PAUSE)
            else:
                await source  # raises what ended it
            self._sweep.soon()
            self._look_at(self.store.services())

    async def _until_changed(self, source: asyncio.Task[None]) -> bool:
        """Wait until the source ends or there are other kinds to watch; returns whether it was the latter."""
        while True:
            blind = bool(self._reconciler.unreadable)
            ended = bool((await asyncio.wait([source], timeout=WATCH_PROVEN if blind else DISCOVERY))[0])
            if not ended and self._reconciler.unreadable.pop(WATCH, None) is not None:
                self._look_at(self.store.services())
            changed = await self._discover() | await self._read_again()
            if changed or ended:
                return changed

    async def _prime(self) -> None:
        while True:
            try:
                for resource in self._resources():
                    await self._read(resource)
            except NotFound:
                logger.error("the cluster has no %s; install Pagoda's CRD", INFERENCE_SERVICE)
            except ClusterError as error:
                logger.warning("the cluster can't be read: %s", error)
            else:
                break
            await asyncio.sleep(UNREADABLE_PAUSE)
        self.ready = True

    async def _read(self, resource: Resource) -> None:
        """Read a kind into the store. One that may not be read is a fact, which every service's status tells."""
        try:
            await self._sweep.prime(resource)
        except Forbidden as error:
            if resource == INFERENCE_SERVICE:
                raise  # there is no status to tell it in
            logger.error("%s can't be read: %s", resource, error)
            self._reconciler.unreadable[str(resource)] = error.message
        else:
            self._reconciler.unreadable.pop(str(resource), None)
            self._metrics.follow_watch(resource, partial(self._sweep.age, resource))

    async def _read_again(self) -> bool:
        """Try what could not be read; returns whether some of it can be now."""
        before = [resource for resource in KINDS if str(resource) in self._reconciler.unreadable]
        for resource in before:
            try:
                await self._read(resource)
            except ClusterError as error:
                logger.warning("%s can't be read: %s", resource, error)
        return any(str(resource) not in self._reconciler.unreadable for resource in before)

    async def _take_external_metrics(self, keeper: ApiServiceKeeper) -> None:
        """Ask once before anything is planned: what scalers are told to read depends on the answer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(keeper.serving.tried(), FIRST_ANSWERS)
        await keeper.ask()
        self._note_external_metrics(keeper)

    async def _hold_external_metrics(self, keeper: ApiServiceKeeper) -> NoReturn:
        while True:
            await asyncio.sleep(keeper.pause)
            if await keeper.ask():
                self._note_external_metrics(keeper)
                self._look_at(self.store.services())

    def _note_external_metrics(self, keeper: ApiServiceKeeper) -> None:
        self._reconciler.external_metrics_holder = keeper.holder
        self._reconciler.external_metrics_problem = keeper.problem

    async def _lead(self, elector: LeaseElector) -> NoReturn:
        await elector.hold()
        raise LeadershipLost(f"the lease of {elector.identity} was lost")

    async def _resync(self) -> NoReturn:
        while True:
            await asyncio.sleep(RESYNC)
            self._look_at(self.store.services())

    async def _work(self) -> NoReturn:
        while True:
            key = await self.queue.get()
            try:
                if self._elector is not None and not self._elector.leads():
                    # Stopped for a while (SIGSTOP, a debugger, a paused machine) this process wakes in the middle of
                    # its work, and somebody else may be at it by now.
                    raise LeadershipLost(f"the lease of {self._elector.identity} ran out")
                await self._reconcile(key)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: ServiceKey) -> None:
        loop = asyncio.get_running_loop()
        started, result = loop.time(), "success"
        context = {"service": str(key)}
        try:
            async with asyncio.timeout(RECONCILE_LIMIT):
                again = await self._reconciler.reconcile(key)
        except Unavailable as error:
            result = "error"
            delay = self.queue.add_failed(key, at_least=error.retry_after or 0.0, at_most=OUTAGE_DELAY)
            logger.warning("again in %.1f s: %s", delay, error, extra=context)
        except (ClusterError, TimeoutError) as error:
            result = "error"
            delay = self.queue.add_failed(key, at_most=RACE_DELAY if isinstance(error, Conflict) else math.inf)
            logger.warning("again in %.1f s: %s", delay, str(error) or "it took too long", extra=context)
        except Exception:
            # A bug met by one service must not stop the others; it is told in full, and counted.
            result = "error"
            delay = self.queue.add_failed(key)
            logger.exception("again in %.1f s", delay, extra=context)
        else:
            self.queue.forget(key)
            if again is not None:
                result = "requeue_after"
                self.queue.add_after(key, max(again, SHORTEST_REQUEUE))
        self._metrics.reconciled(result, loop.time() - started)


def _is_edit(service: Object) -> bool:
    """Whether a service has a status of another generation: its user waits, while a new one has to wait its turn."""
    told = service.get("status", {}).get("observedGeneration")
    return told is not None and told != service["metadata"].get("generation")
