"""One service, once: observe, plan, apply and prune, report. It may run at any time, twice, and after a crash.

What to do is `core.plan.plan`'s business; here it is only done. When nothing is to be done, nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.api.status import QueueStatus
from pagoda_operator.cluster.errors import (
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Terminating,
    Unavailable,
)
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.controller.cluster_facts import ClusterFacts
from pagoda_operator.controller.departures import Departures
from pagoda_operator.controller.events import EventRecorder
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.models import ModelReader
from pagoda_operator.controller.ownership import ServiceKey, key_of
from pagoda_operator.controller.scale_in import ScaleIn
from pagoda_operator.controller.scrape import Scraper
from pagoda_operator.controller.status_writer import StatusWriter
from pagoda_operator.controller.store import Store
from pagoda_operator.controller.tenants import Tenants
from pagoda_operator.controller.writer import ChildKey, ChildWriter
from pagoda_operator.core.children import POD_NEEDS
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.plan import Plan, is_sound
from pagoda_operator.core.settings import Settings

logger = logging.getLogger(__name__)

REFUSALS: Final = (Unavailable, Conflict, Forbidden, Invalid)
"""What a change of a child may fail at while the service stays: the status tells of it, and it is tried again."""

Planner = Callable[[Object, Facts, Settings], Plan]
"""The shape of `core.plan.plan`."""

ROUNDS = 4
"""Plans in one reconcile. One that wrote is followed by a look at what that changed; three always do today."""


class Reconciler:
    """`reconcile` is called with one key at a time each, by any number of workers."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        planner: Planner,
        settings: Settings,
        *,
        cluster_facts: ClusterFacts,
        models: ModelReader,
        scraper: Scraper,
        loads: ServiceLoads,
        tenants: Tenants,
        recorder: EventRecorder,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._planner = planner
        self._settings = settings
        self._cluster_facts = cluster_facts
        self._models = models
        self._loads = loads
        self._recorder = recorder
        self.writer = ChildWriter(cluster, store)
        self._tenants = tenants
        self._departures = Departures()
        self._scale_in = ScaleIn(cluster, store, scraper.ask)
        self._statuses = StatusWriter(cluster, store, recorder, hurried=settings.local)
        self._failing: dict[ServiceKey, dict[ChildKey, str]] = {}
        """Children that the last attempt could not change, with the API server's words."""

    async def reconcile(self, key: ServiceKey) -> float | None:
        """Bring one service a step nearer to its spec; returns seconds until it wants another look without an event.

        Raises ClusterError where the same call may succeed later.
        """
        service = self._store.service(key)
        if service is None:
            self.writer.forget(key)
            self._recorder.forget(key)
            self._statuses.forget(key)
            self._failing.pop(key, None)
            self._departures.forget(key)
            return None
        if "deletionTimestamp" in service["metadata"]:
            return None  # its children go with it, by garbage collection; making them anew would only delay that
        self.writer.expire(service)
        plan, failure = self._plan(service), None
        try:
            for _ in range(ROUNDS):
                if not await self._carry_out(service, plan):
                    break
                plan = self._plan(service)
        except (Terminating, NotFound) as gone:
            # The namespace goes, children first: the service follows, and until then there is nothing to do for it.
            logger.debug("its namespace is being deleted: %s", gone, extra={"service": str(key)})
            return None
        except REFUSALS as error:
            plan, failure = self._plan(service), error  # which is a fact as well, and others may have changed
        details = await self._statuses.write(service, plan.status)
        if failure is not None:
            raise failure
        model = self._models.retry_after(service) if is_sound(service) else None
        delays = (plan.requeue_after, self.writer.retry_after(key), model, details)
        return min((delay for delay in delays if delay is not None), default=None)

    def _plan(self, service: Object) -> Plan:
        key, now = key_of(service), datetime.now(UTC)
        pods = self._store.pods(key)
        facts = Facts(
            now=now,
            children=self._store.children(service),
            pods=pods,
            last_leaving=self._departures.last(key, pods, now),
            nodes=self._store.nodes(),
            model=self._models.facts(service) if is_sound(service) else None,
            reports=self._store.reports(key),
            load=self._load(key),
            served=self._cluster_facts.served,
            unreadable=self._cluster_facts.unreadable,
            external_metrics_holder=self._cluster_facts.external_metrics_holder,
            external_metrics_problem=self._cluster_facts.external_metrics_problem,
            conflicts=self.writer.conflicts(key),
            refused=self.writer.refused(key),
            failing=self._failing.get(key, {}),
            requested=self._tenants.beside(self._store.requested(key)),
        )
        return self._planner(service, facts, self._settings)

    def _load(self, key: ServiceKey) -> QueueStatus | None:
        load = self._loads.of(*key)
        return None if load is None else QueueStatus(waiting=load.waiting, running=load.running)

    async def _carry_out(self, service: Object, plan: Plan) -> bool:
        """Apply and prune; returns whether any fact is another one now.

        One child that can't be written does not keep the others from it, but for what pods need, which come first.
        Raises the first ClusterError.
        """
        key, failures = key_of(service), dict[ChildKey, ClusterError]()
        changed = bool(self._failing.pop(key, None))
        for child in plan.apply:
            try:
                await self._scale_in.before(service, child)
                changed |= await self.writer.apply(service, child)
            except REFUSALS as error:
                failures[child["kind"], child["metadata"]["name"]] = error
                if child["kind"] in POD_NEEDS:
                    break
        else:
            for ref in plan.delete:
                try:
                    changed |= await self.writer.delete(service, ref)
                except REFUSALS as error:
                    failures[ref.kind, ref.name] = error
        if failures:
            self._failing[key] = {child: error.message for child, error in failures.items()}
            raise next(iter(failures.values()))
        return changed
