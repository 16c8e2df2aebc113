"""One pod on a node: its network, volumes, processes, status and end, as a kubelet takes care of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e import enter
from e2e.api import Api, ApiError, Object
from e2e.dns import resolv_conf
from e2e.network import Attachment, PodNetwork
from e2e.pod_volumes import with_folders

from pagoda_operator.local.environment import Secrets
from pagoda_operator.local.pod_runner import PodRunner
from pagoda_operator.local.volumes import Mounts, volume_folders

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
CHECKOUT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Host:
    """What all pods of the harness share."""

    api: Api
    network: PodNetwork
    environment: Mapping[str, str]
    """What an image and a kubelet would set."""
    entrypoints: Mapping[str, Sequence[str]]
    """Image repository -> its entry point."""
    secrets: Callable[[str], Secrets]
    """Of a namespace."""


class PodWorker:
    """Runs a pod from its binding to its deletion. `folder` keeps its logs."""

    def __init__(self, host: Host, pod: Object, folder: Path) -> None:
        self.pod = pod
        self.folder = folder
        self._host = host
        self._path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        self._uid: str = pod["metadata"]["uid"]
        self._asked_to_stop = asyncio.Event()
        self._grace: float = 0.0
        self._runner: PodRunner | None = None

    def update(self, pod: Object) -> None:
        """The API server's newer version of the pod; a deletion timestamp on it asks the worker to end."""
        shorter = pod["metadata"].get("deletionGracePeriodSeconds") != self.pod["metadata"].get(
            "deletionGracePeriodSeconds"
        )
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self.stop(pod["metadata"].get("deletionGracePeriodSeconds", 0), again=shorter)

    def stop(self, grace_seconds: float, *, again: bool = False) -> None:
        """Ask for the end; a second time only to shorten the grace period."""
        if self._asked_to_stop.is_set() and not again:
            return
        self._grace = grace_seconds
        if self._asked_to_stop.is_set() and self._runner is not None:
            self._stopping = asyncio.get_running_loop().create_task(self._runner.stop(grace_seconds))
        self._asked_to_stop.set()

    async def run(self) -> None:
        """Returns once the pod has ended and its object is gone; cancelled, all its processes are killed."""
        if not self._asked_to_stop.is_set():
            attachment = await self._host.network.attach()
            try:
                await self._run_in(attachment)
            finally:
                await self._host.network.detach(attachment)
        await self._delete_object()

    async def _run_in(self, attachment: Attachment) -> None:
        try:
            self._runner = await self._prepare(attachment)
        except (ApiError, ValueError) as error:
            await self._tell({"phase": "Failed", "reason": "CannotRun", "message": str(error)})
            await self._asked_to_stop.wait()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runner.run())
            await self._asked_to_stop.wait()
            await self._runner.stop(self._grace)

    async def _prepare(self, attachment: Attachment) -> PodRunner:
        self.folder.mkdir(parents=True)
        pod = await with_folders(self.pod, self.folder / "objects", self._host.api)
        pod["status"] = {**pod.get("status", {}), "hostIP": self._host.network.gateway}
        claims = await self._claims(pod)
        volumes = volume_folders(pod["spec"], self.folder / "volumes", claims.__getitem__)
        _own(pod["spec"], volumes)
        names = self.folder / "resolv.conf"
        names.write_text(resolv_conf(self._host.network.gateway, pod["metadata"]["namespace"]))
        image = pod["spec"]["containers"][0].get("image", "").rsplit(":", 1)[0].rsplit("@", 1)[0]
        return PodRunner(
            pod,
            folder=self.folder,
            pod_ip=attachment.ip,
            claims=claims.__getitem__,
            on_status=self._tell,
            command_prefix=_prefix(pod["spec"], volumes, attachment, names),
            environment={**self._host.environment, "HOSTNAME": pod["metadata"]["name"]},
            secrets=self._host.secrets(pod["metadata"]["namespace"]),
            entrypoint=self._host.entrypoints.get(image, ()),
        )

    async def _claims(self, pod: Object) -> dict[str, Path]:
        """The folder of each claim of the pod: the scheduler bound the pod after its claims."""
        folders = {}
        for volume in pod["spec"].get("volumes", ()):
            if claim := volume.get("persistentVolumeClaim"):
                name = claim["claimName"]
                path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/persistentvolumeclaims/{name}"
                bound = (await self._host.api.get(path))["spec"]["volumeName"]
                volume_object = await self._host.api.get(f"/api/v1/persistentvolumes/{bound}")
                folders[name] = Path(volume_object["spec"]["hostPath"]["path"])
        return folders

    async def _tell(self, status: Object) -> None:
        """Write the pod's status; conditions of others, which came meanwhile, stay."""
        told = {condition["type"] for condition in status.get("conditions", ())}
        others = [c for c in self.pod.get("status", {}).get("conditions", ()) if c["type"] not in told]
        body = {
            "metadata": {"uid": self._uid},
            "status": {**status, "conditions": others + status.get("conditions", [])},
        }
        try:
            await self._host.api.patch(f"{self._path}/status", body)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            self.stop(0)  # the pod is gone, or another one has its name

    async def _delete_object(self) -> None:
        try:
            await self._host.api.delete(self._path, uid=self._uid, grace_seconds=0)
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _prefix(spec: Object, volumes: Mapping[str, Path], attachment: Attachment, names: Path) -> list[str]:
    """The command that enters the pod's namespaces (see `enter`); `names` is its resolv.conf."""
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    mounted: dict[str, Path] = {}
    for container in containers:
        mounted |= Mounts.of(container, volumes).folders
    binds = {path: source for path, source in mounted.items() if _can_bind(path, names.parent)}
    command = [sys.executable, "-I", "-S", enter.__file__, str(os.getpid()), "--net", str(attachment.namespace)]
    for path, source in binds.items():
        command += ["--bind", str(source), path]
    command += ["--resolve", str(names)]
    if all(container.get("securityContext", {}).get("readOnlyRootFilesystem") for container in containers):
        command += ["--read-only", ",".join(str(source) for source in mounted.values())]
    if (user := spec.get("securityContext", {}).get("runAsUser")) is not None:
        command += ["--user", f"{user}:{spec['securityContext'].get('runAsGroup', 0)}"]
    return [*command, "--"]


def _own(spec: Object, volumes: Mapping[str, Path]) -> None:
    """Volumes as a kubelet hands them to a pod: an emptyDir is everybody's, a claim the group's of `fsGroup`."""
    group = spec.get("securityContext", {}).get("fsGroup", 0)
    for volume in spec.get("volumes", ()):
        folder = volumes[volume["name"]]
        if "emptyDir" in volume:
            os.chown(folder, -1, group)
            folder.chmod(0o2777)
        elif "persistentVolumeClaim" in volume:
            os.chown(folder, -1, group)
            folder.chmod(0o2775)


def _can_bind(path: str, folder: Path) -> bool:
    """Whether the volume can appear at its very path: the host has it, and nothing that the pod needs is behind it."""
    if path == ACCOUNT_FOLDER:
        return True
    needed = (Path(sys.prefix), Path(sys.base_prefix), CHECKOUT, folder)
    return os.path.isdir(path) and not any(place.is_relative_to(path) for place in needed)
