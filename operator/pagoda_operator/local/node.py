"""The one node of local mode: runs the pods that are bound to it, as the kubelet of a node does."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NoReturn

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import NotFound
from pagoda_operator.cluster.interface import Change, WatchEvent
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import PERSISTENT_VOLUME_CLAIM, POD, SECRET
from pagoda_operator.local.addresses import Addresses, NoAddress
from pagoda_operator.local.clock import timestamp
from pagoda_operator.local.environment import Secrets
from pagoda_operator.local.pod_runner import PodRunner
from pagoda_operator.local.pod_status import pod_status, waiting

MANAGER = "kubelet"


class LocalNode:
    """Runs each pod from its binding to `name` until it was deleted and has ended.

    `folder` takes the pods' scratch volumes and logs; `models` is what every PersistentVolumeClaim is here, one cache
    that all services and all runs share. `environment` is what pods get besides their own.
    """

    def __init__(
        self, cluster: MemoryCluster, *, name: str, folder: Path, models: Path, environment: Mapping[str, str]
    ) -> None:
        self._cluster = cluster.acting_as(MANAGER)
        self._name = name
        self._folder = folder
        self._models = models
        self._environment = environment
        self._addresses = Addresses()
        self._numbers = count(1)
        self._pods: dict[str, _Pod] = {}

    async def run(self) -> NoReturn:
        """Run until cancelled, which kills what runs; delete the pods first for an orderly end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bind_claims())
            async for event in self._cluster.watch(POD):
                uid = event.object["metadata"]["uid"]
                if uid in self._pods:
                    self._pods[uid].observe(event)
                elif event.change is not Change.DELETED and event.object["spec"].get("nodeName") == self._name:
                    self._pods[uid] = _Pod(event.object)
                    self._pods[uid].observe(event)
                    group.create_task(self._work(self._pods[uid]))
        raise AssertionError("a watch never ends by itself")

    async def _bind_claims(self) -> None:
        async for event in self._cluster.watch(PERSISTENT_VOLUME_CLAIM):
            if event.change is Change.ADDED:
                with suppress(NotFound):  # deleted meanwhile
                    await self._cluster.apply_status(
                        PERSISTENT_VOLUME_CLAIM, {**event.object, "status": {"phase": "Bound"}}
                    )

    async def _work(self, pod: _Pod) -> None:
        metadata = pod.object["metadata"]
        try:
            await self._run_pod(pod)
        finally:
            del self._pods[metadata["uid"]]
        with suppress(NotFound):  # somebody deleted it without grace
            await self._cluster.delete(
                POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_seconds=0
            )

    async def _run_pod(self, pod: _Pod) -> None:
        ports = [port["containerPort"] for c in pod.object["spec"]["containers"] for port in c.get("ports", ())]
        try:
            ip = self._addresses.take(ports)
        except NoAddress as error:
            await self._cannot_run(pod, str(error))
            return
        try:
            runner = await self._runner(pod.object, ip)
        except ValueError as error:
            await self._cannot_run(pod, str(error))
        else:
            await pod.run(runner)
        finally:
            self._addresses.give_back(ip)

    async def _runner(self, pod: Object, ip: str) -> PodRunner:
        # A number and not the pod's name: the engine's unix socket lies below, and its path has 107 bytes at most.
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(parents=True)

        async def tell(status: Object) -> None:
            await self._tell(pod, status)

        return PodRunner(
            pod,
            folder=folder,
            pod_ip=ip,
            claims=lambda _name: self._models,
            on_status=tell,
            environment=self._environment,
            secrets=await self._secrets(pod["metadata"]["namespace"]),
        )

    async def _tell(self, pod: Object, status: Object) -> None:
        metadata = {name: pod["metadata"][name] for name in ("name", "namespace", "uid")}
        with suppress(NotFound):  # deleted without grace, and about to be killed for it
            await self._cluster.apply_status(
                POD, {"apiVersion": POD.api_version, "kind": POD.kind, "metadata": metadata, "status": status}
            )

    async def _cannot_run(self, pod: _Pod, message: str) -> None:
        """Tell why, and wait for the pod's deletion: an edit of its template replaces it."""
        spec = pod.object["spec"]
        status = pod_status(
            {},
            init=[],
            main=[waiting(container, "CreateContainerConfigError", message) for container in spec["containers"]],
            restart_policy="Always",
            pod_ip="",
            now=timestamp(),
        )
        await self._tell(pod.object, status)
        await pod.graces.get()

    async def _secrets(self, namespace: str) -> Secrets:
        values = {
            (secret["metadata"]["name"], key): base64.b64decode(value).decode()
            for secret in await self._cluster.list(SECRET, namespace)
            for key, value in secret.get("data", {}).items()
        }
        return lambda name, key: values.get((name, key))


class _Pod:
    """A pod of the node, and the grace periods with which it was asked to end, each shorter than the one before."""

    def __init__(self, obj: Object) -> None:
        self.object = obj
        self.graces: asyncio.Queue[float] = asyncio.Queue()
        self._grace: float | None = None
        self._deleted = asyncio.Event()

    def observe(self, event: WatchEvent) -> None:
        metadata = event.object["metadata"]
        if event.change is not Change.DELETED and "deletionTimestamp" not in metadata:
            return
        grace = 0.0 if event.change is Change.DELETED else float(metadata["deletionGracePeriodSeconds"])
        if self._grace is None or grace < self._grace:
            self._grace = grace
            self._deleted.set()
            self.graces.put_nowait(grace)

    async def run(self, runner: PodRunner) -> None:
        """Run the pod until it was deleted and has ended."""
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(self._end(runner, group))
            await runner.run()
            await self._deleted.wait()  # a pod that is done by itself stays until it is deleted
            ending.cancel()

    async def _end(self, runner: PodRunner, group: asyncio.TaskGroup) -> None:
        while True:
            grace = await self.graces.get()
            group.create_task(runner.stop(grace))
