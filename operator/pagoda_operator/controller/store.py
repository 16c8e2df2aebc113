"""The operator's view of the cluster: services, their children and pods, and nodes. Facts are read here, not by GETs.

Events may come late, twice, and out of order between kinds; the view of one object only ever moves forward. So what
the operator has just written, and put here itself, is not undone by an event from before the write.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.interface import Change, WatchEvent
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, NODE, POD, Resource
from pagoda_operator.controller.gpu_ledger import GpuLedger
from pagoda_operator.controller.kept import Shelf, version_of
from pagoda_operator.controller.ownership import Belonging, ServiceKey, belonging, controls, key_of
from pagoda_operator.controller.trim import trim
from pagoda_operator.core.facts import PodReport
from pagoda_operator.planner.nodes import Node

REMEMBERED_DEAD: Final = 4096
"""Uids of deleted objects that are remembered, so that a LIST that began before a deletion can't undo it."""


class ObjectKey(NamedTuple):
    """Names one object of any kind; `namespace` is empty for nodes."""

    resource: Resource
    namespace: str
    name: str


class Store:
    """Answers are shared: read them, don't change them."""

    def __init__(self) -> None:
        self._objects: Shelf[ObjectKey] = Shelf(lambda key: key.resource)
        self._services: set[ServiceKey] = set()
        self._unplanned: set[ServiceKey] = set()
        self._nodes: set[ObjectKey] = set()
        self._gpus: GpuLedger[ObjectKey] = GpuLedger()
        self._nodes_by_name: tuple[Node, ...] | None = None  # until a node changes
        self._belongings: dict[ServiceKey, set[ObjectKey]] = {}  # children and pods
        self._owners: dict[ObjectKey, Belonging] = {}  # the same, the other way round
        self._reports: dict[ServiceKey, Mapping[str, PodReport]] = {}
        self._dead: OrderedDict[str, int] = OrderedDict()  # uid and version of the end
        self._changes: Counter[ServiceKey] = Counter()

    # --- writing -----------------------------------------------------------------------------------------------------

    def observe(self, event: WatchEvent) -> frozenset[ServiceKey]:
        """Take an event in; returns the services that should be looked at because of it."""
        if event.change is Change.DELETED:
            return self.remove(event.resource, event.object)
        return self.put(event.resource, event.object)

    def put(self, resource: Resource, obj: Object) -> frozenset[ServiceKey]:
        """Take in a state of an object, unless a newer one is known; returns the services concerned by a change."""
        key = _object_key(resource, obj)
        known = self._objects.kept(key)
        # An object that lost its label is gone for a watch by label, and back when it is given it again.
        seen = self._dead.get(obj["metadata"]["uid"], -1 if known is None else known.version)
        if version_of(obj) <= seen:
            return frozenset()
        new = trim(resource, obj)
        if not self._objects.put(key, new):
            return frozenset()
        before = self._forget(key)
        self._remember(key, new)
        return before | self._touched(key, new)

    def remove(self, resource: Resource, obj: Object) -> frozenset[ServiceKey]:
        """Forget an object that is gone; a successor of the same name stays."""
        uid = obj["metadata"]["uid"]
        key = _object_key(resource, obj)
        known = self._objects.kept(key)
        self._dead[uid] = max(version_of(obj), self._dead.get(uid, 0))
        if len(self._dead) > REMEMBERED_DEAD:
            self._dead.popitem(last=False)
        if known is not None and known.uid == uid:
            self._objects.pop(key)
            self._forget(key)
            if resource == INFERENCE_SERVICE:
                self._reports.pop(ServiceKey(key.namespace, key.name), None)
                self._changes.pop(ServiceKey(key.namespace, key.name), None)
        # What a pod used may be what another service waits for.
        return self._touched(key, obj) | (self._unplanned if resource == POD else frozenset())

    def report(self, key: ServiceKey, reports: Mapping[str, PodReport]) -> None:
        """Take in what the pods of a service last answered, by pod name."""
        self._reports[key] = reports

    # --- reading -----------------------------------------------------------------------------------------------------

    def services(self) -> frozenset[ServiceKey]:
        """The keys of all services."""
        return frozenset(self._services)

    def service(self, key: ServiceKey) -> Object | None:
        return self.object(ObjectKey(INFERENCE_SERVICE, key.namespace, key.name))

    def children(self, service: Object) -> dict[tuple[str, str], Object]:
        """What the service controls, by (kind, name)."""
        return {
            (key.resource.kind, key.name): child
            for key in self._belongings.get(key_of(service), ())
            if key.resource != POD and controls(service, child := self._objects[key])
        }

    def orphans(self) -> frozenset[ObjectKey]:
        """Children that are controlled by a service which is not known (any more)."""
        return frozenset(
            key
            for service, belongings in self._belongings.items()
            for known in ((None, self._uid(service)),)
            for key in belongings
            if self._owners[key].uid not in known
        )

    def pods(self, key: ServiceKey) -> tuple[Object, ...]:
        """The pods of a service, by name."""
        return tuple(self._objects[pod] for pod in sorted(self._pods(key), key=lambda pod: pod.name))

    def nodes(self) -> tuple[Node, ...]:
        """All nodes, by name."""
        if self._nodes_by_name is None:
            nodes = sorted(self._nodes, key=lambda key: key.name)
            self._nodes_by_name = tuple(Node.of(self._objects[key]) for key in nodes)
        return self._nodes_by_name

    def changes(self, key: ServiceKey) -> int:
        """A number that is another one after each change of a service, its children or its pods."""
        return self._changes[key]

    def reports(self, key: ServiceKey) -> Mapping[str, PodReport]:
        return self._reports.get(key, {})

    def requested(self, key: ServiceKey) -> dict[str, int]:
        """GPUs that the pods of all other services have asked for, by node name."""
        return self._gpus.without(self._pods(key))

    def object(self, key: ObjectKey) -> Object | None:
        """An object of any kind."""
        return self._objects[key] if self._objects.kept(key) is not None else None

    def has_seen(self, key: ObjectKey, uid: str, version: int) -> bool:
        """Whether an object's state of this version, or a later one, or its end, has been told."""
        known = self._objects.kept(key)
        return self._dead.get(uid, -1) >= version or (known is not None and known.version >= version)

    def versions(self, resource: Resource) -> dict[ObjectKey, tuple[str, int]]:
        """Uid and resourceVersion of every object of a kind."""
        return {
            key: (kept.uid, kept.version)
            for key in self._objects
            if key.resource == resource and (kept := self._objects.kept(key)) is not None
        }

    # --- the indexes -------------------------------------------------------------------------------------------------

    def _uid(self, key: ServiceKey) -> str | None:
        kept = self._objects.kept(ObjectKey(INFERENCE_SERVICE, key.namespace, key.name))
        return None if kept is None else kept.uid

    def _pods(self, key: ServiceKey) -> Iterator[ObjectKey]:
        return (found for found in self._belongings.get(key, ()) if found.resource == POD)

    def _remember(self, key: ObjectKey, obj: Object) -> None:
        if key.resource == POD:
            self._gpus.put(key, obj)
        if key.resource == INFERENCE_SERVICE:
            service = ServiceKey(key.namespace, key.name)
            self._services.add(service)
            self._changes[service] += 1
            if not _planned(obj):
                self._unplanned.add(service)
        elif key.resource == NODE:
            self._nodes.add(key)
            self._nodes_by_name = None
        elif (owner := belonging(obj)) is not None:
            self._owners[key] = owner
            self._belongings.setdefault(owner.service, set()).add(key)
            self._changes[owner.service] += 1

    def _forget(self, key: ObjectKey) -> frozenset[ServiceKey]:
        """Take an object out of all indexes; returns the service that it belonged to."""
        if key.resource == POD:
            self._gpus.drop(key)
        if key.resource == INFERENCE_SERVICE:
            service = ServiceKey(key.namespace, key.name)
            self._services.discard(service)
            self._unplanned.discard(service)
            return frozenset((service,))
        if key.resource == NODE:
            self._nodes.discard(key)
            self._nodes_by_name = None
            return frozenset()
        if (owner := self._owners.pop(key, None)) is None:
            return frozenset()
        self._changes[owner.service] += 1
        self._belongings[owner.service].discard(key)
        if not self._belongings[owner.service]:
            del self._belongings[owner.service]
        return frozenset((owner.service,))

    def _touched(self, key: ObjectKey, obj: Object) -> frozenset[ServiceKey]:
        if key.resource == INFERENCE_SERVICE:
            return frozenset((ServiceKey(key.namespace, key.name),))
        if key.resource == NODE:
            return self.services()
        owner = belonging(obj)
        return frozenset() if owner is None else frozenset((owner.service,))


def condition(service: Object | None, type_: str) -> Object:
    """A condition of a service's live status, or an empty one."""
    conditions: Iterable[Object] = (service or {}).get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry.get("type") == type_), {})


def _planned(service: Object | None) -> bool:
    return condition(service, "Planned").get("status") == "True"


def _object_key(resource: Resource, obj: Object) -> ObjectKey:
    # A namespace has many objects, and is kept once.
    return ObjectKey(resource, sys.intern(obj["metadata"].get("namespace", "")), obj["metadata"]["name"])
