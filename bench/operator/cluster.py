"""A real control plane whose nodes and pods are fake: kwok plays the kubelets, one process answers for all engines.

Pagoda is installed by its chart, without its Deployment's pod: the operator runs as a process of this machine, with the
ServiceAccount's token, so that its memory and processor time are its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import yaml
from e2e import binaries, cluster, tiny_model
from e2e.api import Api, Object
from e2e.control_plane import ControlPlane
from e2e.daemon import Daemon, free_ports
from e2e.hub import ModelHub
from e2e.network import PodNetwork
from e2e.nodes import H100, Machine
from e2e.release import CHART, NAME, NAMESPACE

from bench.operator import fake_pods
from pagoda_engine.contract import ENGINE_PORT

POD_RANGE: Final = "10.214.0.0/16"
"""Addresses of fake pods: all lead to the namespace of the process that answers for them."""
PODS_PER_NODE: Final = 100
LEASE_SECONDS: Final = 60
"""kwok renews a node's Lease four times in it; after 50 s without, pods are taken for not ready, which a kubelet would
take back and kwok never does."""
OPERATOR: Final = f"system:serviceaccount:{NAMESPACE}:{NAME}"
STAGES: Final = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-delete.yaml",
    "volume/fast/pvc-provision.yaml",
    "volume/fast/pv-bind.yaml",
)
STORAGE: Final[Object] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "kwok-volume", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kwok.x-k8s.io/volume",
    "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
}
"""The class that kwok's stages know; claims can grow, since growing one is the edit whose way is timed."""


@dataclass(frozen=True, slots=True)
class Programs:
    """What a run needs, built once into the user's cache."""

    control_plane: binaries.Binaries
    kwok: Path
    stages: Path


def programs() -> Programs:
    """Build what is missing. Raises Missing."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    folder = binaries.sources("kwok", "sigs.k8s.io/kwok", say) / "kustomize" / "stage"
    return Programs(binaries.find(say), binaries.build("kwok", say) / "kwok", folder)


class FakeCluster:
    """An async context manager; nothing of it is left behind. `nodes` have GPUs for PODS_PER_NODE pods each."""

    def __init__(self, programs: Programs, nodes: int) -> None:
        self._programs = programs
        self._nodes = nodes
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    @property
    def audit_log(self) -> Path:
        return self.control_plane.audit_log

    def daemon(self, name: str, command: list[str | Path], **environment: str) -> Daemon:
        """A process that ends with the cluster."""
        variables = [f"{key}={value}" for key, value in environment.items()]
        daemon = Daemon(name, ["env", *variables, *command], log=self.folder / f"{name}.log")
        self._exits.callback(daemon.stop)
        return daemon

    async def _start(self) -> None:
        cluster.remove_left_behind()
        self.folder = Path(tempfile.mkdtemp(dir=cluster.ROOT, prefix=f"{cluster.PREFIX}{os.getpid()}-"))
        self._exits.callback(shutil.rmtree, self.folder)
        self._network = PodNetwork()
        self._exits.callback(self._network.close)
        self.control_plane = ControlPlane(
            self._programs.control_plane, self.folder / "control-plane", self._network.gateway
        )
        self._exits.callback(self.control_plane.stop)
        control = self.control_plane
        self.api = await self._exits.enter_async_context(Api(control.url, control.admin_token, control.ca))
        tiny_model.write(self.folder / "hub" / "tests" / "tiny")
        self.hub = self._exits.enter_context(ModelHub(self.folder / "hub", host=self._network.gateway))
        await self.api.create("/apis/storage.k8s.io/v1/storageclasses", STORAGE)
        await self._answer_for_pods()
        await self._install()
        await self._add_nodes()
        self._play()

    async def _answer_for_pods(self) -> None:
        """All of POD_RANGE is routed to one network namespace, where every address of it is local."""
        attachment = await self._network.attach()
        self._exits.push_async_callback(self._network.detach, attachment)
        enter = ["nsenter", f"--net={attachment.namespace}"]
        await _run([*enter, "ip", "route", "add", "local", POD_RANGE, "dev", "lo"])
        await _run(["ip", "route", "add", POD_RANGE, "via", attachment.ip])
        script = [sys.executable, "-I", "-S", fake_pods.__file__, str(ENGINE_PORT)]
        pods = self.daemon("fake-pods", [*enter, *script])
        pods.wait_until(lambda: _listens(attachment.ip, ENGINE_PORT), seconds=10)

    async def _install(self) -> None:
        """The chart without an operator's pod, and what it would have mounted: settings and a token."""
        environment = {**os.environ, "KUBECONFIG": str(self.control_plane.kubeconfig)}
        environment |= {f"HELM_{kind}_HOME": str(self.folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        helm = [str(self._programs.control_plane.helm), "install", NAME, str(CHART), "-n", NAMESPACE]
        await _run([*helm, "--create-namespace", "--set", f"replicas=0,hfEndpoint={self.hub.url}"], environment)
        settings = await self.api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}-settings")
        self.settings = self.folder / "settings.yaml"
        self.settings.write_text(settings["data"]["settings.yaml"])
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}/token"
        token = (await self.api.create(path, request))["status"]["token"]
        document = yaml.safe_load(self.control_plane.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token}
        self.kubeconfig = self.folder / "operator.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(document))

    async def _add_nodes(self) -> None:
        for number in range(self._nodes):
            node = Machine(f"node-{number}", gpu=H100, gpus=2 * PODS_PER_NODE).to_object(f"10.215.0.{number + 1}")
            room = {"cpu": "4k", "memory": "16Ti", "pods": str(2 * PODS_PER_NODE)}
            node["status"]["capacity"] |= room
            node["status"]["allocatable"] |= room
            node["status"]["conditions"] = []
            await self.api.create("/api/v1/nodes", node)

    def _play(self) -> None:
        stages = self.folder / "stages.yaml"
        stages.write_text("\n---\n".join((self._programs.stages / stage).read_text() for stage in STAGES))
        port = free_ports("127.0.0.1", 1)[0]
        self.daemon(
            "kwok",
            [
                self._programs.kwok,
                f"--kubeconfig={self.control_plane.kubeconfig}",
                f"--config={stages}",
                f"--cidr={POD_RANGE}",
                f"--server-address=127.0.0.1:{port}",
                "--manage-all-nodes",
                f"--node-lease-duration-seconds={LEASE_SECONDS}",
            ],
        )


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


async def _run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    """Raises CalledProcessError."""
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, env=environment)
