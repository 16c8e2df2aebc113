"""Just before a Deployment gives up replicas: which of them has the least work, as they themselves say at that moment.

Costs are written for a decrease and at no other time, since every write is one more update of a pod. What they say is
old by the next decrease, when they are written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import Conflict, Forbidden, Invalid, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import DEPLOYMENT, POD
from pagoda_operator.controller.ownership import ServiceKey, key_of
from pagoda_operator.controller.store import Store
from pagoda_operator.core.deletion_cost import ANNOTATION, deletion_costs
from pagoda_operator.core.facts import PodReport

logger = logging.getLogger(__name__)

Ask = Callable[[ServiceKey], Awaitable[Mapping[str, PodReport]]]
"""What the pods of a service answer now, by name."""


class ScaleIn:
    """Marks pods by what it costs to delete them."""

    def __init__(self, cluster: Cluster, store: Store, ask: Ask) -> None:
        self._cluster = cluster
        self._store = store
        self._ask = ask

    async def before(self, service: Object, child: Object) -> None:
        """`child` is about to be applied: if it is a Deployment that gives up replicas, write their costs first.

        Raises ClusterError where trying again may help: the decrease then waits as well.
        """
        live = self._store.children(service).get((child["kind"], child["metadata"]["name"]))
        if child["kind"] != DEPLOYMENT.kind or live is None:
            return
        if 0 < child["spec"]["replicas"] < live["spec"].get("replicas", 1):
            key = key_of(service)
            reports = await self._ask(key)
            pods = {pod["metadata"]["name"]: pod for pod in self._store.pods(key)}
            costs = deletion_costs(pods.values(), reports)
            await asyncio.gather(*(self._write(key, pods[name], cost) for name, cost in costs.items()))

    async def _write(self, key: ServiceKey, pod: Object, cost: int) -> None:
        identity = {name: pod["metadata"][name] for name in ("name", "namespace", "uid")}
        marked = {
            "apiVersion": POD.api_version,
            "kind": POD.kind,
            "metadata": identity | {"annotations": {ANNOTATION: str(cost)}},
        }
        try:
            self._store.put(POD, await self._cluster.apply(POD, marked, force=True))
        except (NotFound, Conflict):
            logger.debug("pod %s is gone already", identity["name"], extra={"service": str(key)})
        except (Forbidden, Invalid) as error:
            # Then any replica may go, with its streams drained all the same; that is no reason to keep them all.
            logger.warning("the replica with the least work can't be marked: %s", error, extra={"service": str(key)})
