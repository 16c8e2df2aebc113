"""The statuses of services, written: headlines at once, details when their time has come, and nothing twice."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import Conflict, Forbidden, Invalid, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE
from pagoda_operator.controller.digest import digest
from pagoda_operator.controller.events import EventRecorder
from pagoda_operator.controller.ownership import ServiceKey, key_of
from pagoda_operator.controller.store import Store
from pagoda_operator.core.urgency import is_urgent, pause

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Write:
    """A status that was written, and what the server made of it; as digests, since there are thousands."""

    sent: bytes
    kept: bytes

    @classmethod
    def of(cls, sent: Object, kept: Object) -> _Write:
        return cls(digest(sent), digest(kept))

    def made(self, sent: Object, kept: Object) -> bool:
        """Whether it is this status that the server has made that of."""
        return digest(sent) == self.sent and digest(kept) == self.kept


class StatusWriter:
    """All writes to statuses, and the Events that go with them; one service is in one hand at a time.

    `hurried`: details don't wait either. Without a cluster a write costs nothing, and somebody looks on.
    """

    def __init__(self, cluster: Cluster, store: Store, recorder: EventRecorder, *, hurried: bool) -> None:
        self._cluster = cluster
        self._store = store
        self._recorder = recorder
        self._hurried = hurried
        self._written: dict[ServiceKey, _Write] = {}
        self._untold: dict[ServiceKey, float] = {}
        """Services whose status is another one than is written, and since when."""

    def forget(self, key: ServiceKey) -> None:
        """The service is gone."""
        self._written.pop(key, None)
        self._untold.pop(key, None)

    async def write(self, service: Object, status: Object) -> float | None:
        """Write a service's status where it changed; returns seconds until it may be written where that has to wait.

        A service that is gone has none any more. Raises ClusterError where it was not written otherwise.
        """
        key, live = key_of(service), service.get("status", {})
        last = self._written.get(key)
        if status == live or (last is not None and last.made(status, live)):
            self._untold.pop(key, None)
            return None
        now = asyncio.get_running_loop().time()
        wait = self._untold.setdefault(key, now) + pause(len(self._untold)) - now
        if wait > 0 and not self._hurried and not is_urgent(live, status):
            return wait
        try:
            written = await self._cluster.apply_status(INFERENCE_SERVICE, _document(service, status))
        except (Forbidden, Invalid) as refusal:
            await self._recorder.status_refused(service, refusal.message)
            raise
        except NotFound:
            logger.debug("deleted while it was reconciled", extra={"service": str(key)})
            return None
        except Conflict as conflict:
            # Another of that name, or a race that the server lost: either way what is live must be looked at again.
            raise Conflict(f"the status was not written: {conflict.message}") from conflict
        self._store.put(INFERENCE_SERVICE, written)
        self._written[key] = _Write.of(status, written.get("status", {}))
        self._untold.pop(key, None)
        await self._recorder.record(service, written)
        return None


def _document(service: Object, status: Object) -> Object:
    """What is applied: the uid is a precondition, so that a successor of that name does not get it."""
    metadata = {name: service["metadata"][name] for name in ("name", "namespace", "uid")}
    return {"apiVersion": service["apiVersion"], "kind": service["kind"], "metadata": metadata, "status": status}
