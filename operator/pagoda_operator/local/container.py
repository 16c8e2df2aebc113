"""One container of a pod over its whole life: started, probed, restarted with back-off, and its state told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from pagoda_operator.api.names import Object
from pagoda_operator.local.backoff import BackOff
from pagoda_operator.local.clock import timestamp
from pagoda_operator.local.container_process import ContainerProcess
from pagoda_operator.local.environment import ConfigError
from pagoda_operator.local.probes import Probe, verdicts

CONFIG_RETRY = 10.0
"""Seconds until a container that could not be made is tried again (a Secret may have come)."""


@dataclass(frozen=True, slots=True)
class Probes:
    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is needed to start a container; `command` raises ConfigError while it can't be started."""

    name: str
    image: str
    command: Callable[[], tuple[list[str], dict[str, str]]]
    """Makes (argv, environment) anew for each start."""
    folder: Path
    logs: Path
    """A folder; each run of the container logs to `<number of restarts>.log`, the last two are kept."""
    restart_policy: str
    message_from_log: bool
    grace_seconds: float
    probes: Probes = field(default_factory=Probes)


class Container:
    """Runs a recipe until it is done or stopped. What a container status says is in the attributes.

    `changed` is called after each change of an attribute.
    """

    def __init__(self, recipe: Recipe, *, backoff: BackOff, changed: Callable[[], None]) -> None:
        self.recipe = recipe
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: Object = {}
        self.restarts = 0
        self.ready = False
        self.started = False
        self._backoff = backoff
        self._changed = changed
        self._stopping = asyncio.Event()
        self._process: ContainerProcess | None = None
        self._log_path = recipe.logs / "0.log"

    @property
    def log_path(self) -> Path:
        """The log of the current run."""
        return self._log_path

    async def run(self, session: aiohttp.ClientSession) -> int:
        """Start, restart as the policy says, and return the last exit code. Cancelled: the process group is killed."""
        crashes = 0
        while True:
            code, seconds = await self._run_once(session)
            if self._stopping.is_set() or not self._restarts_after(code):
                return code
            crashes = 0 if seconds >= self._backoff.reset else crashes
            await self._wait_before_restart(self._backoff.delay(crashes))
            if self._stopping.is_set():
                return code
            crashes += 1
            self.restarts += 1

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, SIGKILL after the grace period; a waiting container is not started any more."""
        self._stopping.set()
        if self._process is not None:
            await self._process.terminate(grace_seconds)

    async def _run_once(self, session: aiohttp.ClientSession) -> tuple[int, float]:
        process = await self._start()
        if process is None:
            return 1, 0.0
        clock, since = asyncio.get_running_loop().time, timestamp()
        start = clock()
        self._process = process
        self._set(state={"running": {"startedAt": since}})
        try:
            if self._stopping.is_set():  # asked to stop while it was being started
                await process.terminate(self.recipe.grace_seconds)
            async with asyncio.TaskGroup() as group:
                probing = group.create_task(self._probe(process, session))
                code = await process.wait()
                probing.cancel()
        finally:
            await process.kill()
            self._process = None
        self._set(state={"terminated": self._terminated(code, since, process)}, ready=False, started=False)
        return code, clock() - start

    async def _start(self) -> ContainerProcess | None:
        """The started process, or None where it was stopped while its configuration was incomplete."""
        while not self._stopping.is_set():
            try:
                argv, environment = self.recipe.command()
            except ConfigError as error:
                self._set(state={"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}})
                await self._pause(CONFIG_RETRY)
                continue
            return await ContainerProcess.start(
                argv, environment=environment, folder=self.recipe.folder, log=self._next_log()
            )
        return None

    async def _probe(self, process: ContainerProcess, session: aiohttp.ClientSession) -> None:
        probes = self.recipe.probes
        if probes.startup and not await self._first_verdict(probes.startup, session):
            await self._kill_unhealthy(process, probes.startup)
            return
        self._set(started=True, ready=probes.readiness is None)
        async with asyncio.TaskGroup() as group:
            if probes.readiness:
                group.create_task(self._follow_readiness(probes.readiness, session))
            if probes.liveness:
                group.create_task(self._follow_liveness(probes.liveness, process, session))

    async def _first_verdict(self, probe: Probe, session: aiohttp.ClientSession) -> bool:
        async with aclosing(verdicts(probe, session)) as stream:
            async for passing in stream:
                return passing
        raise RuntimeError("a probe asks for ever")

    async def _follow_readiness(self, probe: Probe, session: aiohttp.ClientSession) -> None:
        async with aclosing(verdicts(probe, session)) as stream:
            async for passing in stream:
                if passing != self.ready:
                    self._set(ready=passing)

    async def _follow_liveness(self, probe: Probe, process: ContainerProcess, session: aiohttp.ClientSession) -> None:
        async with aclosing(verdicts(probe, session)) as stream:
            async for passing in stream:
                if not passing:
                    await self._kill_unhealthy(process, probe)
                    return

    async def _kill_unhealthy(self, process: ContainerProcess, probe: Probe) -> None:
        if self._stopping.is_set():
            return  # the grace period of the stop is running; only readiness is still asked for
        grace = self.recipe.grace_seconds if probe.termination_grace is None else probe.termination_grace
        await process.terminate(grace)

    async def _wait_before_restart(self, delay: float) -> None:
        self.last_state = self.state
        if delay > 0:
            message = f"back-off {delay:g}s restarting failed container={self.recipe.name}"
            self._set(state={"waiting": {"reason": "CrashLoopBackOff", "message": message}})
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        """Sleep, or until the container is to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _restarts_after(self, code: int) -> bool:
        policy = self.recipe.restart_policy
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def _terminated(self, code: int, since: str, process: ContainerProcess) -> Object:
        terminated: Object = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": since,
            "finishedAt": timestamp(),
            "containerID": f"process://{process.pid}",
        }
        if code != 0 and self.recipe.message_from_log:
            terminated["message"] = process.last_words()
        return terminated

    def _next_log(self) -> Path:
        (self.recipe.logs / f"{self.restarts - 2}.log").unlink(missing_ok=True)
        self._log_path = self.recipe.logs / f"{self.restarts}.log"
        return self._log_path

    def _set(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)
        self._changed()

    def status(self) -> Object:
        """The container status of the Pod API."""
        return {
            "name": self.recipe.name,
            "image": self.recipe.image,
            "imageID": self.recipe.image,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }
