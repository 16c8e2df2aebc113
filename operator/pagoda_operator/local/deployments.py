"""The least of a Deployment controller: makes each Deployment's pods what its spec says, and tells its status."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import NotFound
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, POD
from pagoda_operator.local.clock import timestamp
from pagoda_operator.local.rollout import Rollout

MANAGER = "deployment-controller"

Key = tuple[str, str]
"""(namespace, name) of a Deployment."""


class Deployments:
    """Follows Deployments and their pods and takes one step for each change. Pods are made on `node_name`.

    Between Deployment and pod there is no ReplicaSet: nothing here rolls back.
    """

    def __init__(self, cluster: MemoryCluster, *, node_name: str) -> None:
        self._cluster = cluster.acting_as(MANAGER)
        self._node_name = node_name
        self._dirty: asyncio.Queue[Key] = asyncio.Queue()

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_deployments())
            group.create_task(self._follow_pods())
            group.create_task(self._work())
        raise AssertionError("its tasks never end by themselves")

    async def _follow_deployments(self) -> None:
        async for event in self._cluster.watch(DEPLOYMENT):
            metadata = event.object["metadata"]
            self._dirty.put_nowait((metadata["namespace"], metadata["name"]))

    async def _follow_pods(self) -> None:
        async for event in self._cluster.watch(POD):
            if (owner := _owner(event.object)) is not None:
                self._dirty.put_nowait((event.object["metadata"]["namespace"], owner["name"]))

    async def _work(self) -> None:
        while True:
            await self._reconcile(*await self._dirty.get())

    async def _reconcile(self, namespace: str, name: str) -> None:
        try:
            deployment = await self._cluster.get(DEPLOYMENT, namespace, name)
        except NotFound:
            return  # its pods go with it, by garbage collection
        uid = deployment["metadata"]["uid"]
        pods = [
            pod for pod in await self._cluster.list(POD, namespace) if (owner := _owner(pod)) and owner["uid"] == uid
        ]
        rollout = Rollout.of(deployment, pods)
        step = rollout.step()
        for _ in range(step.create):
            await self._cluster.create(POD, rollout.pod(self._node_name))
        for pod in step.delete:
            metadata = pod["metadata"]
            await self._cluster.delete(POD, namespace, metadata["name"], uid=metadata["uid"])
        # What was done just now is told with the events that it makes.
        await self._cluster.apply_status(DEPLOYMENT, {**deployment, "status": rollout.status(timestamp())})


def _owner(pod: Object) -> Object | None:
    """The Deployment that controls a pod."""
    for reference in pod["metadata"].get("ownerReferences", ()):
        if reference.get("controller") and reference["kind"] == DEPLOYMENT.kind:
            return dict(reference)
    return None
