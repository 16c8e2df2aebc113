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
import platform
from collections.abc import Sequence
from typing import Final, NoReturn

from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.controller.answers import Fetch
from pagoda_operator.controller.api_service import ApiServiceKeeper
from pagoda_operator.controller.cluster_facts import ClusterFacts
from pagoda_operator.controller.events import EventRecorder
from pagoda_operator.controller.fence import Fenced
from pagoda_operator.controller.lease import LeadershipLost, LeaseElector
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.controller.models import Inspect, ModelReader
from pagoda_operator.controller.orphans import Orphans
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.queue import WorkQueue
from pagoda_operator.controller.reconcile import Planner, Reconciler
from pagoda_operator.controller.scrape import Scraper
from pagoda_operator.controller.sources import Source
from pagoda_operator.controller.store import Store
from pagoda_operator.controller.tenants import Tenants
from pagoda_operator.controller.view import ClusterView
from pagoda_operator.controller.vigil import Vigil
from pagoda_operator.controller.workers import WORKERS, Workers
from pagoda_operator.core.plan import plan
from pagoda_operator.core.settings import Settings

logger = logging.getLogger(__name__)

RESYNC: Final = 600.0
"""Seconds between two looks at every service without an event."""
FIRST_ANSWERS: Final = 10.0
"""Seconds that a new leader waits at most for what it has asked: all pods, all nodes with GPUs."""


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
        led = cluster if elector is None else Fenced(cluster, elector)
        self.store = Store()
        self.queue: WorkQueue[ServiceKey] = WorkQueue()
        self.ready = False
        """Whether the cluster has been read once."""
        self._elector = elector
        self._external_metrics = external_metrics
        self._metrics = metrics or OperatorMetrics()
        self._facts = ClusterFacts()
        self._view = ClusterView(
            cluster,
            source,
            self.store,
            self.queue,
            facts=self._facts,
            metrics=self._metrics,
            namespaces=namespaces,
        )
        self._models = ModelReader(cluster, self.queue.add, inspect=inspect)
        self.loads = ServiceLoads(self.store)
        """The services' loads, for scalers to ask, also while another instance leads."""
        self._scraper = Scraper(self.store, self.queue.add_soon, self.loads, fetch=fetch)
        self._tenants = Tenants(cluster, self.store, self.queue.add_all, namespaces)
        self._reconciler = Reconciler(
            led,
            self.store,
            planner,
            settings,
            cluster_facts=self._facts,
            models=self._models,
            scraper=self._scraper,
            loads=self.loads,
            tenants=self._tenants,
            recorder=EventRecorder(led, instance=platform.node()),
        )
        self._workers = Workers(self.queue, self._reconciler, elector, self._metrics)
        self._orphans = Orphans(led, self.store)
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
                await self._view.discover()
                tasks.create_task(self._view.watch(), name="watch")
                await self._view.prime()
                self.ready = True
                tasks.create_task(self._view.sweep(), name="sweep")
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
                # Nor one that takes GPUs of others for free: where a service is planned first, it stays.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._tenants.look(), FIRST_ANSWERS)
                tasks.create_task(self._tenants.run(), name="tenants")
                tasks.create_task(self._vigil.run(), name="vigil")
                tasks.create_task(self._orphans.run(), name="orphans")
                for number in range(WORKERS):
                    tasks.create_task(self._workers.work(), name=f"worker {number}")
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
        return self._workers.stuck()

    def _place_is_free(self, key: ServiceKey, kind: str, name: str) -> None:
        self._reconciler.writer.retry(key, kind, name)
        self.queue.add(key)

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
                self.queue.add_all(self.store.services())

    def _note_external_metrics(self, keeper: ApiServiceKeeper) -> None:
        self._facts.external_metrics_holder = keeper.holder
        self._facts.external_metrics_problem = keeper.problem

    async def _lead(self, elector: LeaseElector) -> NoReturn:
        await elector.hold()
        raise LeadershipLost(f"the lease of {elector.identity} was lost")

    async def _resync(self) -> NoReturn:
        while True:
            await asyncio.sleep(RESYNC)
            self.queue.add_all(self.store.services())
