"""A small kubelet for all nodes of the harness: keeps them Ready and runs the pods that the scheduler binds to them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import aiohttp
from e2e.api import Api, ApiError, Object
from e2e.informer import Informer, Key, key_of
from e2e.network import PodNetwork
from e2e.nodes import LEASE_SECONDS, RENEW_SECONDS, Machine, ready_condition
from e2e.pod_worker import Host, PodWorker

from pagoda_operator.local.environment import Secrets

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod that ran, or runs: where its logs are."""

    name: str
    namespace: str
    folder: Path

    def log(self, container: str) -> str:
        """All runs of the container whose logs are kept, oldest first."""
        files = sorted((self.folder / "logs" / container).glob("*.log"), key=lambda path: int(path.stem))
        return "".join(path.read_text(errors="replace") for path in files)


class NodeAgent:
    """`run` until cancelled; then no process of a pod is left."""

    def __init__(
        self,
        api: Api,
        network: PodNetwork,
        folder: Path,
        *,
        environment: Mapping[str, str],
        entrypoints: Mapping[str, Sequence[str]],
    ) -> None:
        self.records: list[PodRecord] = []
        self._api = api
        self._network = network
        self._folder = folder
        self._machines: dict[str, Machine] = {}
        self._workers: dict[str, PodWorker] = {}
        self._numbers = count(1)
        self._group = asyncio.TaskGroup()
        self._secrets = Informer(api, "/api/v1/secrets")
        self._pods = Informer(api, "/api/v1/pods", self._pod_changed)
        self._host = Host(api, network, environment, entrypoints, self._secrets_of)

    async def run(self) -> None:
        async with self._group:
            self._group.create_task(self._secrets.run())
            await self._secrets.synced()
            self._group.create_task(self._pods.run())
            self._group.create_task(self._renew())

    async def add(self, machine: Machine) -> None:
        """Register a node."""
        self._machines[machine.name] = machine
        await self._api.create("/api/v1/nodes", machine.to_object(self._network.gateway))
        await self._api.create(LEASES, machine.lease(_micro_time()))

    async def remove(self, name: str) -> None:
        """The machine is gone: its pods die without a word, and its Node goes."""
        del self._machines[name]
        for worker in self._workers.values():
            if worker.pod["spec"].get("nodeName") == name:
                worker.stop(0)
        await self._api.delete(f"/api/v1/nodes/{name}")
        await self._api.delete(f"{LEASES}/{name}")  # a kubelet's is owned by its Node, and goes with it

    def pod(self, key: Key) -> Object | None:
        return self._pods.items.get(key)

    def _pod_changed(self, pod: Object, gone: bool) -> None:
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            if gone:
                worker.stop(0)
            else:
                worker.update(pod)
        elif not gone and pod["spec"].get("nodeName") in self._machines:
            self._start(pod)

    def _start(self, pod: Object) -> None:
        # Short, for unix sockets below it: a path of theirs has at most 107 bytes.
        folder = self._folder / f"p{next(self._numbers)}"
        namespace, name = key_of(pod)
        self.records.append(PodRecord(name, namespace, folder))
        worker = PodWorker(self._host, pod, folder)
        worker.update(pod)
        self._workers[pod["metadata"]["uid"]] = worker
        self._group.create_task(self._work(worker))

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[worker.pod["metadata"]["uid"]]

    async def _renew(self) -> None:
        """Heartbeats: a Lease each, as kubelets do; the Ready condition is written when a node is added."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            for machine in list(self._machines.values()):
                body = {"spec": {"renewTime": _micro_time(), "leaseDurationSeconds": LEASE_SECONDS}}
                try:
                    await self._api.patch(f"{LEASES}/{machine.name}", body)
                except ApiError as error:
                    if error.code < 500 and error.code != 404:  # the node was removed meanwhile
                        raise
                except (aiohttp.ClientError, TimeoutError):
                    pass  # the server is not there at the moment, and the next heartbeat comes

    def _secrets_of(self, namespace: str) -> Secrets:
        def value(name: str, key: str) -> str | None:
            data = self._secrets.items.get((namespace, name), {}).get("data", {})
            return base64.b64decode(data[key]).decode() if key in data else None

        return value


def _micro_time() -> str:
    return ready_condition()["lastHeartbeatTime"].replace("Z", ".000000Z")
