"""A cluster without an API server: the whole world of `pagoda local up`, and of the tests.

It keeps the promises of `Cluster` and `Watchable` as an API server, its admission and its garbage collector keep them,
for the kinds of `resources.py`: server-side apply, status apart from spec, uids, generations, optimistic locks,
deletion in the background, InferenceServices defaulted and refused in the API server's words. What it leaves out: other
kinds' defaults and schemas, namespaces, RBAC, quotas.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Mapping
from uuid import uuid4

from pagoda_operator.api.names import FIELD_MANAGER, Object
from pagoda_operator.cluster.admission import Key, admitted, invalid, key_of, main_part, named, ownable, without_nulls
from pagoda_operator.cluster.errors import AlreadyExists, Conflict
from pagoda_operator.cluster.field_ownership import Clash, Manager, Owners, apply, update
from pagoda_operator.cluster.interface import Change, Objects, WatchEvent
from pagoda_operator.cluster.resources import ALL, OPTIONAL, Resource
from pagoda_operator.cluster.world import Stored, Watcher, World, selects


class MemoryCluster:
    """`Cluster` and `Watchable` in memory; lives in one event loop.

    `manager` is the field manager that writes; `acting_as` gives the same cluster to another one. `optional` are those
    kinds that this cluster has, of the ones that a cluster may lack; without `collects` its garbage collector is away.
    """

    def __init__(
        self, *, manager: str = FIELD_MANAGER, optional: frozenset[Resource] = frozenset(), collects: bool = True
    ) -> None:
        kinds = frozenset(resource for resource in ALL if resource not in OPTIONAL) | optional
        self._world = World(kinds, collects=collects)
        self._manager = manager

    def acting_as(self, manager: str) -> MemoryCluster:
        """The same cluster, written to in another field manager's name."""
        other = copy.copy(self)
        other._manager = manager
        return other

    # --- reading -----------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return copy.deepcopy(self._world.stored(resource, (namespace or "", name)).object)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        without: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> list[Object]:
        objects = [stored.object for stored in self._world.table(resource).values()]
        found = [obj for obj in objects if selects(obj, namespace, labels or {})]
        found = [obj for obj in found if not any(selects(obj, None, {k: v}) for k, v in (without or {}).items())]
        found = [obj for obj in found if all(_at(obj, path) == value for path, value in (fields or {}).items())]
        if metadata_only:
            found = [{key: obj[key] for key in ("apiVersion", "kind", "metadata")} for obj in found]
        return copy.deepcopy(found)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Objects, None]:
        yield await self.list(resource, namespace, labels=labels, metadata_only=metadata_only)

    async def watch(
        self, resource: Resource, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        watcher = Watcher(resource, namespace, labels or {})
        for stored in self._world.table(resource).values():
            if watcher.selects(stored.object):
                watcher.events.put_nowait(WatchEvent(Change.ADDED, resource, stored.object))
        self._world.watchers.add(watcher)
        try:
            while True:
                yield await watcher.events.get()
        finally:
            self._world.watchers.discard(watcher)

    async def served(self, resource: Resource) -> bool:
        return resource in self._world.kinds

    # --- writing -----------------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, obj: Object) -> Object:
        wanted = admitted(resource, main_part(resource, named(obj)))
        key = key_of(resource, wanted)
        if key in self._world.table(resource):
            raise AlreadyExists(f'{resource} "{key[1]}" already exists', status=409)
        owners = update({}, ownable(wanted), {}, Manager(self._manager, "Update"))
        return self._put(resource, key, Stored(wanted, owners))

    async def replace(self, resource: Resource, obj: Object) -> Object:
        key = key_of(resource, obj)
        live = self._world.stored(resource, key)
        if not obj["metadata"].get("resourceVersion"):
            problem = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
            raise invalid(resource, key[1], [problem])
        _check_version(resource, key, obj, live)
        wanted = admitted(resource, main_part(resource, copy.deepcopy(obj)))
        owners = update(ownable(live.object), ownable(wanted), live.owners, Manager(self._manager, "Update"))
        return self._put(resource, key, Stored(wanted, owners))

    async def apply(self, resource: Resource, obj: Object, *, force: bool) -> Object:
        wanted = without_nulls(main_part(resource, obj))
        key = key_of(resource, wanted)
        live = self._world.table(resource).get(key)
        _check_uid(resource, key, wanted, live)
        owners: Owners = live.owners if live else {}
        manager = Manager(self._manager, "Apply")
        merged, owners, clashes = apply(live.object if live else {}, ownable(wanted), owners, manager, force=force)
        if clashes:
            raise _conflict(clashes)
        _check_version(resource, key, wanted, live)
        identity = {name: wanted["metadata"][name] for name in ("name", "namespace") if name in wanted["metadata"]}
        merged |= {
            "apiVersion": wanted["apiVersion"],
            "kind": wanted["kind"],
            "metadata": {**merged.get("metadata", {}), **identity},
        }
        return self._put(resource, key, Stored(admitted(resource, merged), owners))

    async def apply_status(self, resource: Resource, obj: Object) -> Object:
        key = key_of(resource, obj)
        live = self._world.stored(resource, key)
        _check_uid(resource, key, obj, live)
        wanted = {"status": without_nulls(obj.get("status", {}))}
        manager = Manager(self._manager, "Apply", "status")
        merged, owners, _ = apply(live.object, wanted, live.owners, manager, force=True)
        return self._put(resource, key, Stored(merged, owners), status=True)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str, grace_seconds: float | None = None
    ) -> None:
        """As `Cluster.delete`. A pod on a node is marked only, and goes when its node deletes it with grace 0."""
        key = (namespace or "", name)
        there = self._world.stored(resource, key).object["metadata"]["uid"]
        if there != uid:
            raise Conflict(
                f'Operation cannot be fulfilled on {resource} "{name}": Precondition failed: '
                f"UID in precondition: {uid}, UID in object meta: {there}",
                status=409,
            )
        self._world.delete(resource, key, grace_seconds=grace_seconds)

    def _put(self, resource: Resource, key: Key, new: Stored, *, status: bool = False) -> Object:
        return copy.deepcopy(self._world.put(resource, key, new, uid=str(uuid4()), status=status))


def _at(obj: Object, path: str) -> object:
    """The value at a dotted path, or None."""
    found: object = obj
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _check_uid(resource: Resource, key: Key, wanted: Object, live: Stored | None) -> None:
    uid = wanted["metadata"].get("uid")
    there = live.object["metadata"]["uid"] if live else None
    if uid and uid != there:
        found = f"the existing object has UID {there}" if there else "no existing object was found"
        raise Conflict(f'{resource} "{key[1]}": uid mismatch: the provided object has {uid}, and {found}', status=409)


def _check_version(resource: Resource, key: Key, wanted: Object, live: Stored | None) -> None:
    version = wanted["metadata"].get("resourceVersion")
    if live is not None and version not in (None, live.object["metadata"]["resourceVersion"]):
        raise Conflict(
            f'Operation cannot be fulfilled on {resource} "{key[1]}": the object has been modified; '
            "please apply your changes to the latest version and try again",
            status=409,
        )


def _conflict(clashes: list[Clash]) -> Conflict:
    if len(clashes) == 1:
        return Conflict(f"Apply failed with 1 conflict: {clashes[0]}", status=409)
    listed = "\n".join(f"- {clash}" for clash in clashes)
    return Conflict(f"Apply failed with {len(clashes)} conflicts:\n{listed}", status=409)
