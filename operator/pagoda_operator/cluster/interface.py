"""What the operator asks of a cluster. Objects are plain dicts in the API's own camelCase.

`cluster/kubernetes.py` keeps these promises with an API server, `cluster/memory.py` without one; the controller can't
tell which it has. All calls raise the errors of `cluster/errors.py` and nothing else. What is returned belongs to the
caller, what is passed in is left as it was; objects from a watch are shared and must not be changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.resources import Resource

Objects: TypeAlias = list[Object]  # inside the class, `list` is the method


class Change(StrEnum):
    """What a watch tells of an object, in the API's words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


NEVER: Final = "1"
"""A resourceVersion that no object has: etcd's revision before anything was written."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`object` is the state after the change; with DELETED the last one that was known."""

    change: Change
    resource: Resource
    object: Object


class Cluster(Protocol):
    """A cluster that can be read and written."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object. Raises NotFound."""
        ...

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
        """All objects (of one namespace) whose labels have every pair of `labels`, each with `apiVersion` and `kind`.

        Those whose labels have a pair of `without` are left out, and so are those without every value of `fields`, by
        dotted path (`metadata.name`, or `spec.nodeName` of pods; an API server selects by few others). Long lists are
        read in pages. With `metadata_only` at least `metadata` is filled.
        A kind that is not served raises NotFound.
        """
        ...

    def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[Objects]:
        """The same as `list`, piece by piece, so that nobody holds all of it at once; an object may come twice."""
        ...

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Create an object as the API server then has it. Raises AlreadyExists."""
        ...

    async def replace(self, resource: Resource, obj: Object) -> Object:
        """Put an object in place of the one with its `metadata.resourceVersion`. Raises NotFound, Conflict."""
        ...

    async def apply(self, resource: Resource, obj: Object, *, force: bool) -> Object:
        """Server-side apply: create the object, or make the given fields so and forget those applied earlier.

        Without `force`, raises Conflict with a message naming manager and field where another field manager owns a
        field with another value; with it, takes the field over. `metadata.uid` and `metadata.resourceVersion`, where
        given, are preconditions: raises Conflict when the object has another one. A uid also means that there is such
        an object, the version NEVER that there is none yet.
        """
        ...

    async def apply_status(self, resource: Resource, obj: Object) -> Object:
        """The same, forced, for the status subresource: `obj` has type, name, namespace and `status`.

        Never creates. Raises NotFound.
        """
        ...

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str) -> None:
        """Delete the object if it still is the one of that uid; its dependents follow in the background.

        Raises NotFound, and Conflict when the name belongs to another object by now.
        """
        ...

    async def served(self, resource: Resource) -> bool:
        """Whether this cluster has the kind at all."""
        ...


class Watchable(Protocol):
    """A cluster that is its own watch: it never loses a change and never has to be asked again."""

    def watch(
        self, resource: Resource, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[WatchEvent]:
        """First ADDED for each object there is, then every change in order, until the iterator is closed.

        An object whose labels stop matching is DELETED to this watch, and ADDED when they match (again).
        """
        ...
