"""GPUs that pods of others hold: the watches show only what the operator made, and most pods of a cluster ask for none.

So nobody watches them. Every node with GPUs is asked for its foreign pods now and then, and of the answer only a number
is kept. It may be half a minute old, or lack what the operator may not see: then the scheduler has the last word (see
`core.rollout`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NoReturn

from pagoda_operator.cluster.errors import ClusterError
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import POD
from pagoda_operator.controller.ownership import MANAGED_BY, ServiceKey
from pagoda_operator.controller.sources import namespaces_for
from pagoda_operator.controller.store import Store, condition
from pagoda_operator.core.pods import is_over
from pagoda_operator.planner.gpus import gpus_asked

logger = logging.getLogger(__name__)

PERIOD: Final = 30.0
PAUSE: Final = 0.5
"""Seconds between two rounds, and between two nodes of a round: a large cluster is asked no faster, only later."""


class Tenants:
    """`beside` adds what was found to what our own pods hold. `changed` is called with the services that may have
    waited for other numbers than those before."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        changed: Callable[[Iterable[ServiceKey]], None],
        namespaces: Sequence[str] = (),
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._changed = changed
        self._namespaces = namespaces
        self._held: Mapping[str, int] = {}

    def beside(self, own: Mapping[str, int]) -> dict[str, int]:
        """GPUs held by node: `own`, and those of foreign pods."""
        return {node: own.get(node, 0) + self._held.get(node, 0) for node in {*own, *self._held}}

    async def run(self) -> NoReturn:
        """Ask for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            await self.look(pause=PAUSE)

    async def look(self, *, pause: float = 0.0) -> None:
        """One round, with so many seconds between two nodes. Where it fails, what was known before stays."""
        try:
            held = await self._count(pause)
        except ClusterError as error:
            logger.warning("foreign pods on GPU nodes can't be counted: %s", error)
            return
        if held != self._held:
            self._held = held
            self._changed([key for key in self._store.services() if not self._is_settled(key)])

    async def _count(self, pause: float) -> dict[str, int]:
        """Raises ClusterError."""
        held: dict[str, int] = {}
        for name in [node.name for node in self._store.nodes() if node.gpus]:
            if gpus := await self._held_on(name):
                held[name] = gpus
            await asyncio.sleep(pause)
        return held

    def _is_settled(self, key: ServiceKey) -> bool:
        service = self._store.service(key)
        return condition(service, "WorkloadReady").get("status") == "True"

    async def _held_on(self, node: str) -> int:
        held = 0
        for namespace in namespaces_for(POD, self._namespaces):
            pods = await self._cluster.list(POD, namespace, fields={"spec.nodeName": node}, without=MANAGED_BY)
            held += sum(gpus_asked(pod["spec"]) for pod in pods if not is_over(pod))
        return held
