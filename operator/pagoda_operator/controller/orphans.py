"""Children whose service is gone and that Kubernetes' garbage collector has left: they hold GPUs and names, for nobody.

Deletion is the garbage collector's, and works without the operator. But it goes by events, and a deletion that falls
into the first seconds of an API server's life it may never hear of (seen with Kubernetes 1.36: a service deleted two
seconds after the only API server had come back). Then nothing but a restart of the controller manager has it look
again. What it does not see to is deleted here, when the API server has confirmed both: that the child has no other
owner than that service, and that there is no such service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set
from typing import Final, NoReturn

from pagoda_operator.cluster.errors import ClusterError, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE
from pagoda_operator.controller.ownership import ServiceKey, owning_service
from pagoda_operator.controller.store import ObjectKey, Store

logger = logging.getLogger(__name__)

PERIOD: Final = 10.0
"""Seconds between two looks."""
PAUSE: Final = 0.1
"""Seconds between two orphans of a look."""


class Orphans:
    """`look` once, or `run` for ever."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._store = store
        self._before: Set[ObjectKey] = frozenset()

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            await self.look()

    async def look(self) -> None:
        """Delete what was an orphan at the last look too. While some of those go, the garbage collector is at work, and
        is left to it: a thousand services take it minutes."""
        found = self._store.orphans()
        if self._before <= found:
            done = {key for key in self._before if await self._collected(key)}
            found = self._store.orphans() - done
        self._before = found

    async def _collected(self, key: ObjectKey) -> bool:
        await asyncio.sleep(PAUSE)
        try:
            return await self._collect(key)
        except NotFound:
            return True
        except ClusterError as error:
            logger.warning("%s %s may be left over: %s", key.resource.kind, key.name, error, extra=_service(key))
            return False

    async def _collect(self, key: ObjectKey) -> bool:
        """Delete a child if it is nobody's; returns whether it was. Raises ClusterError."""
        child = await self._cluster.get(key.resource, key.namespace, key.name)
        owner = owning_service(child)
        if owner is None or len(child["metadata"]["ownerReferences"]) > 1 or "deletionTimestamp" in child["metadata"]:
            return False
        # Of that name there may be another one by now.
        named = await self._cluster.list(
            INFERENCE_SERVICE, key.namespace, fields={"metadata.name": owner["name"]}, metadata_only=True
        )
        if any(service["metadata"]["uid"] == owner["uid"] for service in named):
            return False
        await self._cluster.delete(key.resource, key.namespace, key.name, uid=child["metadata"]["uid"])
        message = "deleted %s %s: its service is gone, and the garbage collector did not see to it"
        logger.info(message, key.resource.kind, key.name, extra=_service(key, owner["name"]))
        return True


def _service(key: ObjectKey, name: str = "") -> dict[str, str]:
    return {"service": str(ServiceKey(key.namespace, name or key.name))}
