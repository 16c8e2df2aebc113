"""A cluster that is written to by the leader alone.

A process may be stopped anywhere (SIGSTOP, a paused machine), also between two writes of one reconcile, and wake when
another one leads. So every write asks first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.interface import Cluster, Objects
from pagoda_operator.cluster.resources import Resource
from pagoda_operator.controller.lease import LeadershipLost, LeaseElector


class Fenced:
    """A `Cluster`; its writes raise LeadershipLost unless `elector` leads."""

    def __init__(self, cluster: Cluster, elector: LeaseElector) -> None:
        self._cluster = cluster
        self._elector = elector

    # --- reading -----------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._cluster.get(resource, namespace, name)

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
        return await self._cluster.list(
            resource, namespace, labels=labels, without=without, fields=fields, metadata_only=metadata_only
        )

    def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[Objects]:
        return self._cluster.pages(resource, namespace, labels=labels, metadata_only=metadata_only)

    async def served(self, resource: Resource) -> bool:
        return await self._cluster.served(resource)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, obj: Object) -> Object:
        return await self._writable().create(resource, obj)

    async def replace(self, resource: Resource, obj: Object) -> Object:
        return await self._writable().replace(resource, obj)

    async def apply(self, resource: Resource, obj: Object, *, force: bool) -> Object:
        return await self._writable().apply(resource, obj, force=force)

    async def apply_status(self, resource: Resource, obj: Object) -> Object:
        return await self._writable().apply_status(resource, obj)

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str) -> None:
        await self._writable().delete(resource, namespace, name, uid=uid)

    def _writable(self) -> Cluster:
        if not self._elector.leads():
            raise LeadershipLost(f"the lease of {self._elector.identity} ran out in the middle of work")
        return self._cluster
