"""One Pod as local processes: what a kubelet does for it.

Init containers run in order, then the containers together; volumes are folders, the pod IP is an address of this
machine, and what becomes of it all is told through a callback as the Pod's `status`. Used by `pagoda local up` and by
the end-to-end harness' nodes, so it knows neither of them.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp

from pagoda_operator.api.names import Object
from pagoda_operator.local.backoff import BackOff
from pagoda_operator.local.clock import timestamp
from pagoda_operator.local.container import Container, Probes, Recipe
from pagoda_operator.local.environment import Secrets, container_variables
from pagoda_operator.local.expansion import expand
from pagoda_operator.local.pod_status import pod_status
from pagoda_operator.local.probes import Probe, probe_session
from pagoda_operator.local.volumes import Mounts, volume_folders

DEFAULT_GRACE_SECONDS = 30.0
SCRATCH = "/tmp"
"""Where a container's temporary files go: `TMPDIR` is set to the folder that stands for it."""


class PodRunner:
    """Runs `pod` until it is done or stopped. `run` once; `stop` any time, again with a shorter grace period too.

    `folder` is the pod's own: `volumes/` in it (the emptyDirs) goes with the pod, `logs/CONTAINER/RESTARTS.log` stays.
    `claims` gives the folder of a PersistentVolumeClaim, `secrets` the value of a Secret's key. `environment` is what
    an image would set (PATH, say); the pod's own variables win. `command_prefix` stands before each command
    (`ip netns exec NAME`). `entrypoint` is the image's, for a container that names no command.

    `on_status` is awaited with a full status whenever it changed, one at a time, the newest only. If it raises, the pod
    is killed and `run` raises an ExceptionGroup with it. Raises ValueError for a pod that can't be run here: one with
    another kind of volume or probe, or a container without a command.
    """

    def __init__(
        self,
        pod: Object,
        *,
        folder: Path,
        pod_ip: str,
        claims: Callable[[str], Path],
        on_status: Callable[[Object], Awaitable[None]],
        command_prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        secrets: Secrets = lambda _name, _key: None,
        entrypoint: Sequence[str] = (),
        backoff: BackOff | None = None,
    ) -> None:
        self._pod = pod
        self._folder = folder
        self._pod_ip = pod_ip
        self._on_status = on_status
        self._prefix = tuple(command_prefix)
        self._environment = dict(environment or {})
        self._secrets = secrets
        self._entrypoint = tuple(entrypoint)
        self._spec: Object = pod["spec"]
        self._policy: str = self._spec.get("restartPolicy", "Always")
        self._grace = float(self._spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
        self._changed = asyncio.Event()
        self._stopping = False
        self._done = asyncio.Event()
        self._running = False
        self._finished = False
        self._status: Object = pod.get("status", {})
        self._volumes = volume_folders(self._spec, folder / "volumes", claims)
        self._init = self._containers("initContainers", backoff or BackOff())
        self._main = self._containers("containers", backoff or BackOff())

    @property
    def status(self) -> Object:
        """The status that was told last."""
        return self._status

    def log_path(self, container: str) -> Path:
        """The log of a container's current run. Raises KeyError where the pod has no such container."""
        return {c.recipe.name: c for c in (*self._init, *self._main)}[container].log_path

    async def run(self) -> None:
        """Run the pod; returns when it was stopped, or when its restart policy starts nothing any more.

        However this ends, no process and no emptyDir is left.
        """
        self._running = True
        try:
            async with probe_session() as session, asyncio.TaskGroup() as group:
                group.create_task(self._tell())
                await self._run_containers(session)
                self._finished = True
                self._changed.set()
        finally:
            self._remove_volumes()
            self._done.set()

    async def stop(self, grace_seconds: float | None = None) -> None:
        """SIGTERM to each container, SIGKILL after the grace period (default: the pod's); returns after `run`."""
        self._stopping = True
        grace = self._grace if grace_seconds is None else grace_seconds
        async with asyncio.TaskGroup() as group:
            for container in (*self._init, *self._main):
                group.create_task(container.stop(grace))
        if self._running:
            await self._done.wait()

    def _remove_volumes(self) -> None:
        volumes = self._folder / "volumes"
        if volumes.exists():
            shutil.rmtree(volumes)

    async def _run_containers(self, session: aiohttp.ClientSession) -> None:
        self._changed.set()
        for container in self._init:
            code = await container.run(session)
            if code != 0 or self._stopping:
                return
        async with asyncio.TaskGroup() as group:
            for container in self._main:
                group.create_task(container.run(session))

    async def _tell(self) -> None:
        while not self._finished:
            await self._changed.wait()
            self._changed.clear()
            await self._tell_once()

    async def _tell_once(self) -> None:
        status = pod_status(
            self._status,
            init=[container.status() for container in self._init],
            main=[container.status() for container in self._main],
            restart_policy=self._policy,
            pod_ip=self._pod_ip,
            now=timestamp(),
        )
        if status != self._status:
            await self._on_status(status)
            self._status = status

    def _containers(self, key: str, backoff: BackOff) -> list[Container]:
        containers = []
        for spec in self._spec.get(key, ()):
            recipe = self._recipe(spec)
            if key == "initContainers":
                # An init container is over once it succeeded, whatever the pod's policy.
                policy = "Never" if self._policy == "Never" else "OnFailure"
                recipe = replace(recipe, restart_policy=policy, probes=Probes())
            container = Container(recipe, backoff=backoff, changed=self._changed.set)
            if self._spec.get("initContainers"):
                container.state = {"waiting": {"reason": "PodInitializing"}}
            containers.append(container)
        return containers

    def _recipe(self, container: Object) -> Recipe:
        name = container["name"]
        mounts = Mounts.of(container, self._volumes)
        logs = self._folder / "logs" / name
        logs.mkdir(parents=True, exist_ok=True)
        if not (container.get("command") or self._entrypoint):
            raise ValueError(f"container {name!r} names no command; its image's can't be known here")

        def probe(kind: str) -> Probe | None:
            return Probe.of(container.get(kind), container, pod_ip=self._pod_ip)

        def command() -> tuple[list[str], dict[str, str]]:
            variables = container_variables(container, self._pod, pod_ip=self._pod_ip, secrets=self._secrets)
            words = [*(container.get("command") or self._entrypoint), *container.get("args", ())]
            argv = mounts.rewrite_all(expand(word, variables) for word in words)
            own = {key: mounts.rewrite(value) for key, value in variables.items()}
            scratch = {"TMPDIR": str(mounts.folders[SCRATCH])} if SCRATCH in mounts.folders else {}
            return [*self._prefix, *argv], {**self._environment, **scratch, **own}

        return Recipe(
            name=name,
            image=container.get("image", ""),
            command=command,
            folder=Path(mounts.rewrite(container["workingDir"])) if "workingDir" in container else self._folder,
            logs=logs,
            restart_policy=self._policy,
            message_from_log=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
            grace_seconds=self._grace,
            probes=Probes(probe("startupProbe"), probe("readinessProbe"), probe("livenessProbe")),
        )
