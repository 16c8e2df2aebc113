"""A slow LIST of every kind: fills the store at the start, and later finds what the watches have missed.

A watch that is opened anew after a 410 does not tell what was deleted meanwhile: such ghosts are purged here. And a
watch can be silent for ever: the LIST shows what it should have told, so this is its watchdog as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Final, NoReturn

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import ClusterError, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, Resource
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.sources import labels_for, namespaces_for
from pagoda_operator.controller.store import ObjectKey, Store

logger = logging.getLogger(__name__)

Changed = Callable[[Iterable[ServiceKey]], None]

_State = tuple[str, int]
"""Uid and resourceVersion."""


class WatchSilent(Exception):
    """A watch is not telling what happens; only a new start of the process is known to help."""


SHARE: Final = 1 / 500
"""Of a processor's time that sweeps may take: those of thousands of objects come less often than others."""
LONGEST: Final = 6
"""Periods between two sweeps at most."""


class Sweep:
    """Seconds: `period` is the pause between two sweeps, `grace` what a watch may lag behind a LIST, `settle` the time
    from `soon` to the sweep, in which more may come."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        changed: Changed,
        namespaces: Sequence[str] = (),
        *,
        period: float = 300.0,
        grace: float = 30.0,
        settle: float = 3.0,
    ) -> None:
        self._due = asyncio.Event()
        self._confirmed: dict[Resource, float] = {}
        self._cluster = cluster
        self._store = store
        self._changed = changed
        self._namespaces = namespaces
        self._period = period
        self._grace = grace
        self._settle = settle

    async def prime(self, resource: Resource) -> None:
        """Read a kind whole, so that the first plan does not take a child for missing. Raises ClusterError."""
        async for obj in self._list(resource, metadata_only=False):
            self._changed(self._store.put(resource, obj))
        self._confirmed[resource] = asyncio.get_running_loop().time()

    def age(self, resource: Resource) -> float:
        """Seconds since the view of a kind was last found complete."""
        return asyncio.get_running_loop().time() - self._confirmed[resource]

    async def check(self, resources: Sequence[Resource]) -> None:
        """Purge ghosts and look for what the watches have missed. Raises WatchSilent, ClusterError."""
        behind: dict[Resource, dict[ObjectKey, _State]] = {}
        for resource in resources:
            behind[resource] = await self._compare(resource)
        if any(behind.values()):
            await asyncio.sleep(self._grace)
        for resource, missed in behind.items():
            still = [key for key, state in missed.items() if not self._store.has_seen(key, *state)]
            if still:
                raise WatchSilent(f"the watch of {resource} has not told of {len(still)} changes, e.g. {still[0].name}")
            self._confirmed[resource] = asyncio.get_running_loop().time()

    def soon(self) -> None:
        """Sweep in a moment: a watch lists anew, and what was gone by then it will not tell."""
        self._due.set()

    async def run(self, resources: Callable[[], Sequence[Resource]]) -> NoReturn:
        """`check` for ever what `resources` then says. Raises WatchSilent."""
        pause = self._period
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), pause)
                await asyncio.sleep(self._settle)
            self._due.clear()
            before = time.process_time()
            try:
                await self.check(resources())
            except ClusterError as error:
                logger.warning("the cluster could not be swept: %s", error)
            pause = self._pause(time.process_time() - before)

    def _pause(self, spent: float) -> float:
        """Until the next sweep, after one that took so many seconds of the processor."""
        return min(max(self._period, spent / SHARE), LONGEST * self._period)

    async def _compare(self, resource: Resource) -> dict[ObjectKey, _State]:
        """Purge what is gone; returns what the store does not have, or has an older version of."""
        # Taken before the LIST: whatever is younger than it can't be found missing there.
        known = self._store.versions(resource)
        listed: dict[ObjectKey, _State] = {}
        async for obj in self._list(resource, metadata_only=True):
            metadata = obj["metadata"]
            key = ObjectKey(resource, metadata.get("namespace", ""), metadata["name"])
            listed[key] = metadata["uid"], int(metadata["resourceVersion"])
        uids = {uid for uid, _ in listed.values()}
        for key, (uid, _) in known.items():
            if uid not in uids:
                logger.info("purged %s %s/%s, whose deletion was not told", resource, key.namespace, key.name)
                self._changed(self._store.remove(resource, _tombstone(key, uid, self._store)))
        return {key: state for key, state in listed.items() if not self._store.has_seen(key, *state)}

    async def _list(self, resource: Resource, *, metadata_only: bool) -> AsyncGenerator[Object, None]:
        for namespace in namespaces_for(resource, self._namespaces):
            labels = labels_for(resource)
            pages = self._cluster.pages(resource, namespace, labels=labels, metadata_only=metadata_only)
            try:
                async for page in pages:
                    for obj in page:
                        yield obj
            except NotFound:
                if resource == INFERENCE_SERVICE:
                    raise  # the CRD is not there (yet); anything else that is not served has no objects


def _tombstone(key: ObjectKey, uid: str, store: Store) -> Object:
    return store.object(key) or {"metadata": {"name": key.name, "namespace": key.namespace, "uid": uid}}
