"""Carries out what a plan says of a service's children, and remembers what the cluster would not let it do.

A child's place may be held by a foreign object, and an API server may refuse a child (quota, policy, schema). Both are
facts for the next plan, not errors: they end in a condition, and the write is tried again slowly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import Conflict, Forbidden, Invalid, NotFound
from pagoda_operator.cluster.interface import NEVER, Cluster
from pagoda_operator.cluster.resources import resource_of, resource_of_kind
from pagoda_operator.controller.digest import digest
from pagoda_operator.controller.ownership import ServiceKey, controls, holder, key_of
from pagoda_operator.controller.store import Store
from pagoda_operator.controller.trim import trim
from pagoda_operator.core.plan import ObjectRef

logger = logging.getLogger(__name__)

RETRY_FOREIGN: Final = 60.0
RETRY_ALLOWED: Final = (2.0, 60.0)
RETRY_CHANGE: Final = 600.0
"""Seconds after which it is tried again without an event: to find a place free, should its `Vigil` have missed that; to
do what was not allowed, at first and at last, doubled in between (a quota may be raised, a role given a verb, an API
server that has just begun knows no roles); to change what can't be so (a claim that can't grow will seldom ever)."""

REPLACED: Final = ("PodDisruptionBudget",)
"""Kinds that cost nothing to delete and make anew where they can't be mended: somebody set a field that excludes ours,
and an apply takes no field of others away."""

ChildKey = tuple[str, str]
"""(kind, name), as in `Facts.children`."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a child is not written for now; another wish, or another generation of the service, is tried at once."""

    message: str
    foreign: bool
    wish: bytes
    generation: int
    retry_at: float


class ChildWriter:
    """All writes to children; one service is in one hand at a time."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._store = store
        self._obstacles: dict[ServiceKey, dict[ChildKey, Obstacle]] = {}
        self._taken: dict[ServiceKey, set[ChildKey]] = {}  # places that foreign objects held when last looked at
        self._settled: dict[ServiceKey, dict[ChildKey, tuple[bytes, bytes]]] = {}
        self._pauses: dict[ServiceKey, dict[ChildKey, float]] = {}

    def conflicts(self, key: ServiceKey) -> Mapping[ChildKey, str]:
        """Places of children that foreign objects hold, with a sentence on who holds them."""
        return {child: o.message for child, o in self._obstacles.get(key, {}).items() if o.foreign}

    def refused(self, key: ServiceKey) -> Mapping[ChildKey, str]:
        """Children that the API server refused, with its own message."""
        return {child: o.message for child, o in self._obstacles.get(key, {}).items() if not o.foreign}

    def held(self) -> list[tuple[ServiceKey, str, str]]:
        """The places of all services' children that foreign objects hold."""
        return [(key, *child) for key, found in self._obstacles.items() for child, o in found.items() if o.foreign]

    def retry(self, key: ServiceKey, kind: str, name: str) -> None:
        """A place is free: the next plan may write there."""
        self._obstacles.get(key, {}).pop((kind, name), None)

    def retry_after(self, key: ServiceKey) -> float | None:
        """Seconds until something that was refused should be tried again."""
        obstacles = self._obstacles.get(key, {}).values()
        return max(0.0, min(o.retry_at for o in obstacles) - _monotonic()) if obstacles else None

    def forget(self, key: ServiceKey) -> None:
        """The service is gone."""
        self._obstacles.pop(key, None)
        self._taken.pop(key, None)
        self._settled.pop(key, None)
        self._pauses.pop(key, None)

    def expire(self, service: Object) -> None:
        """Forget the obstacles that are due: where they still stand, the next attempt finds them again."""
        obstacles = self._obstacles.get(key_of(service), {})
        generation = _generation(service)
        for child, obstacle in list(obstacles.items()):
            if obstacle.generation != generation or _monotonic() >= obstacle.retry_at:
                del obstacles[child]

    async def apply(self, service: Object, desired: Object) -> bool:
        """Make a child so; returns whether that changed a fact. Raises ClusterError where trying again is all to do."""
        key, child = key_of(service), (desired["kind"], desired["metadata"]["name"])
        wish = digest(desired)
        obstacle = self._obstacles.get(key, {}).get(child)
        if obstacle is not None and obstacle.wish == wish:
            return False
        live = self._store.children(service).get(child)
        try:
            if live is None and child in self._taken.get(key, ()):
                live = await self._find(service, desired)  # most likely taken still, and asking writes nothing
            written = await self._create(desired) if live is None else None
            if written is None:
                live = live or await self._find(service, desired)
                if live is None:
                    raise Conflict(f"{child[0]} {child[1]} was there a moment ago, and is gone")
                if self._leave(key, child, wish, live):
                    return False
                written = await self._write(desired, live)
        except (_Foreign, Forbidden, Invalid) as refusal:
            foreign = isinstance(refusal, _Foreign)
            if foreign:
                pause = RETRY_FOREIGN
            elif live is None or isinstance(refusal, Forbidden):
                pause = self._next_pause(key, child)
            elif desired["kind"] in REPLACED:
                logger.info("%s %s can't be mended: %s", *child, refusal.message, extra={"service": str(key)})
                return await self.delete(service, ObjectRef(*child, live["metadata"]["uid"]))
            else:
                pause = RETRY_CHANGE
            obstacle = Obstacle(refusal.message, foreign, wish, _generation(service), _monotonic() + pause)
            return self._obstruct(key, child, obstacle)
        self._obstacles.get(key, {}).pop(child, None)
        self._taken.get(key, set()).discard(child)
        self._pauses.get(key, {}).pop(child, None)
        resource = resource_of(desired)
        self._store.put(resource, written)
        self._settled.setdefault(key, {})[child] = (wish, digest(_shape(trim(resource, written))))
        logger.info("applied %s %s", *child, extra={"service": str(key)})
        return True

    async def delete(self, service: Object, ref: ObjectRef) -> bool:
        """Delete a child, if it still is the one that was meant; returns whether that changed a fact."""
        key = key_of(service)
        live = self._store.children(service).get((ref.kind, ref.name))
        if live is None or live["metadata"]["uid"] != ref.uid or "deletionTimestamp" in live["metadata"]:
            return False
        resource = resource_of_kind(ref.kind)
        try:
            await self._cluster.delete(resource, key.namespace, ref.name, uid=ref.uid)
        except NotFound:
            logger.debug("%s %s was gone already", ref.kind, ref.name, extra={"service": str(key)})
        except Conflict as conflict:
            # A successor has the name, which our watch will show; or a race that the server lost. Forgotten by us it
            # would be an orphan.
            raise Conflict(f"{ref.kind} {ref.name} was not deleted: {conflict.message}") from conflict
        else:
            logger.info("deleted %s %s", ref.kind, ref.name, extra={"service": str(key)})
        # Should a finalizer hold it a little longer, it is of no interest to us any more.
        self._store.remove(resource, live)
        return True

    async def _create(self, desired: Object) -> Object | None:
        """Make a child that our watch does not show, or return None where something stands in its place: an apply
        without precondition would merge into that."""
        new = desired | {"metadata": desired["metadata"] | {"resourceVersion": NEVER}}
        try:
            return await self._cluster.apply(resource_of(desired), new, force=False)
        except Conflict:
            return None

    async def _find(self, service: Object, desired: Object) -> Object | None:
        """What stands in a child's place and our watch has not shown, if anything. Raises _Foreign."""
        metadata = desired["metadata"]
        try:
            found = await self._cluster.get(resource_of(desired), metadata["namespace"], metadata["name"])
        except NotFound:
            return None
        if not controls(service, found):
            raise _Foreign(holder(service, found))
        self._store.put(resource_of(desired), found)
        return found

    async def _write(self, desired: Object, live: Object) -> Object:
        # The uid is a precondition: should the child be gone by now, it is not brought back by half a plan.
        meant = desired | {"metadata": desired["metadata"] | {"uid": live["metadata"]["uid"]}}
        try:
            return await self._cluster.apply(resource_of(desired), meant, force=True)
        except Conflict as conflict:
            raise Conflict(f"{desired['kind']} changed under us: {conflict.message}") from conflict

    def _leave(self, key: ServiceKey, child: ChildKey, wish: bytes, live: Object) -> bool:
        """Whether to leave a child alone although it is not as desired."""
        if "deletionTimestamp" in live["metadata"]:
            return True  # it is made anew when it is gone
        # The same wish gave this very object before: the server (admission, normalisation) wants it so. Asking again
        # would only make two controllers fight.
        return self._settled.get(key, {}).get(child) == (wish, digest(_shape(live)))

    def _next_pause(self, key: ServiceKey, child: ChildKey) -> float:
        first, last = RETRY_ALLOWED
        pauses = self._pauses.setdefault(key, {})
        pauses[child] = min(2 * pauses[child], last) if child in pauses else first
        return pauses[child]

    def _obstruct(self, key: ServiceKey, child: ChildKey, obstacle: Obstacle) -> bool:
        if obstacle.foreign:
            self._taken.setdefault(key, set()).add(child)
        known = self._obstacles.setdefault(key, {}).get(child)
        self._obstacles[key][child] = obstacle
        changed = known is None or (known.message, known.foreign) != (obstacle.message, obstacle.foreign)
        if changed:
            logger.warning("%s %s: %s", *child, obstacle.message, extra={"service": str(key)})
        return changed


class _Foreign(Exception):
    """A child's place is held by an object that is not this service's; the message says by whom."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _generation(service: Object) -> int:
    return int(service["metadata"].get("generation", 0))


def _shape(obj: Object) -> Object:
    """What a write decides of an object: not its status, not what the server counts."""
    counted = ("resourceVersion", "generation", "managedFields")
    metadata = {name: value for name, value in obj["metadata"].items() if name not in counted}
    return {name: value for name, value in obj.items() if name != "status"} | {"metadata": metadata}


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
