"""The state of an in-memory cluster, and what an API server does behind a call: count, tell the watches, collect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.admission import SERVER_FIELDS, WITH_STATUS, Key, check_immutable
from pagoda_operator.cluster.errors import NotFound
from pagoda_operator.cluster.field_ownership import Owners
from pagoda_operator.cluster.interface import Change, WatchEvent
from pagoda_operator.cluster.resources import POD, Resource

DEFAULT_GRACE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Stored:
    """An object and who owns its fields. Never changed, only replaced; so events and watches may share it."""

    object: Object
    owners: Owners


@dataclass(eq=False, slots=True)
class Watcher:
    """One open watch: what it selects, and what it has not read yet."""

    resource: Resource
    namespace: str | None
    labels: Mapping[str, str]
    events: asyncio.Queue[WatchEvent] = field(default_factory=asyncio.Queue)

    def selects(self, obj: Object) -> bool:
        return selects(obj, self.namespace, self.labels)


class World:
    """All objects of one cluster, by resource and key. `collects`: garbage is collected."""

    def __init__(self, kinds: frozenset[Resource], *, collects: bool) -> None:
        self.kinds = kinds
        self._collects = collects
        self.watchers: set[Watcher] = set()
        self._objects: dict[Resource, dict[Key, Stored]] = {resource: {} for resource in kinds}
        self._versions = count(2)  # as etcd: at 1 nothing was written yet
        self._collecting = False

    def table(self, resource: Resource) -> Mapping[Key, Stored]:
        """All objects of a kind. Raises NotFound for one that is not served."""
        if resource not in self.kinds:
            raise NotFound("the server could not find the requested resource", status=404)
        return self._objects[resource]

    def stored(self, resource: Resource, key: Key) -> Stored:
        """One object. Raises NotFound."""
        table = self.table(resource)
        if key not in table:
            raise NotFound(f'{resource} "{key[1]}" not found', status=404)
        return table[key]

    def put(self, resource: Resource, key: Key, new: Stored, *, uid: str, status: bool = False) -> Object:
        """Store an object, or with `status` its status; nothing at all happens where nothing changes.

        `uid` is for an object that is new. Returns what is stored, which is shared. Raises Invalid.
        """
        live = self._objects[resource].get(key)
        before = live.object if live else {}
        obj = _composed(resource, before, new, status=status)
        metadata = obj["metadata"]
        if live is not None and (obj, new.owners) == (before, live.owners):
            return before
        if live is None:
            metadata |= {"uid": uid, "creationTimestamp": now(), "generation": 1}
        elif obj.get("spec") != before.get("spec"):
            check_immutable(resource, before, obj)
            metadata["generation"] += 1
        self._store(resource, key, replace(new, object=obj))
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and resource != POD:
            self.remove(resource, key)
        self._collect_soon()
        return obj

    def delete(self, resource: Resource, key: Key, *, grace_seconds: float | None = None) -> None:
        """Remove an object; or mark it, where a finalizer holds it, or it is a pod whose node has to end it first."""
        live = self._objects[resource][key]
        obj, metadata = live.object, live.object["metadata"]
        on_node = resource == POD and bool(obj["spec"].get("nodeName"))
        marks: Object = {"deletionTimestamp": metadata.get("deletionTimestamp", now())}
        if on_node:
            own, before = obj["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS), _grace(metadata)
            grace = min(grace for grace in (before, grace_seconds, own) if grace is not None)
            # The time at which it is to be gone, counted from the first wish, whatever the grace period is by now.
            later = timedelta(seconds=grace - (before or 0))
            marks["deletionTimestamp"] = _timestamp(datetime.fromisoformat(marks["deletionTimestamp"]) + later)
            marks["deletionGracePeriodSeconds"] = grace
        if not metadata.get("finalizers") and not marks.get("deletionGracePeriodSeconds"):
            self.remove(resource, key)
        elif not marks.items() <= metadata.items():
            self._store(resource, key, replace(live, object={**obj, "metadata": {**metadata, **marks}}))

    def remove(self, resource: Resource, key: Key) -> None:
        last = self._objects[resource].pop(key).object
        version = {"resourceVersion": str(next(self._versions))}
        self._tell(resource, last, {**last, "metadata": {**last["metadata"], **version}}, gone=True)
        self._collect_soon()

    def _store(self, resource: Resource, key: Key, new: Stored) -> None:
        before = self._objects[resource].get(key)
        new.object["metadata"]["resourceVersion"] = str(next(self._versions))
        self._objects[resource][key] = new
        self._tell(resource, before.object if before else None, new.object)

    def _tell(self, resource: Resource, before: Object | None, after: Object, *, gone: bool = False) -> None:
        for watcher in self.watchers:
            if watcher.resource != resource:
                continue
            was, still = before is not None and watcher.selects(before), not gone and watcher.selects(after)
            if was or still:
                change = Change.DELETED if not still else Change.MODIFIED if was else Change.ADDED
                watcher.events.put_nowait(WatchEvent(change, resource, after))

    def _collect_soon(self) -> None:
        """Garbage collection runs behind the call that made garbage, as in a cluster."""
        if self._collects and not self._collecting:
            self._collecting = True
            asyncio.get_running_loop().call_soon(self._collect)

    def _collect(self) -> None:
        """Delete what has owners none of which exists (any more)."""
        self._collecting = False
        everything = [(r, key, stored) for r, table in self._objects.items() for key, stored in table.items()]
        uids = {stored.object["metadata"]["uid"] for _, _, stored in everything}
        for resource, key, stored in everything:
            owners = stored.object["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in uids for owner in owners):
                self.delete(resource, key)


def selects(obj: Object, namespace: str | None, labels: Mapping[str, str]) -> bool:
    """Whether an object is of a namespace (None: any) and has every pair of `labels`."""
    metadata = obj["metadata"]
    in_namespace = namespace is None or metadata.get("namespace") == namespace
    own: Mapping[str, str] = metadata.get("labels", {})
    return in_namespace and labels.items() <= own.items()


def now() -> str:
    """Now, as the API writes it: whole seconds of UTC."""
    return _timestamp(datetime.now(UTC))


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _grace(metadata: Object) -> float | None:
    """The grace period of an object that is being deleted."""
    return metadata.get("deletionGracePeriodSeconds")


def _composed(resource: Resource, before: Object, new: Stored, *, status: bool) -> Object:
    """The new object with what a write can't change taken from the one before."""
    old = before.get("metadata", {})
    written = {name: value for name, value in new.object["metadata"].items() if name not in SERVER_FIELDS}
    kept = {name: old[name] for name in SERVER_FIELDS if name in old}
    metadata = {**written, **kept, "managedFields": _managed_fields(resource, new.owners)}
    obj = {**new.object, "metadata": metadata}
    if not status and resource in WITH_STATUS:
        obj.pop("status", None)
        obj |= {"status": before["status"]} if "status" in before else {}
    return obj


def _managed_fields(resource: Resource, owners: Owners) -> list[Object]:
    """Who wrote, without saying what: the fields themselves are kept aside."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": resource.api_version,
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager in sorted(owners)
    ]
