"""Model facts, read by `pagoda inspect URI` in a process of its own and kept.

A process, so that the operator imports nothing of the engine but the contract, and a registry that hangs, or a header
that eats memory, hurts nobody else.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pagoda_engine.contract import ExitCode, ModelFacts
from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import ClusterError
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import SECRET
from pagoda_operator.controller.ownership import ServiceKey, key_of
from pagoda_operator.core.facts import ModelUnreadable

logger = logging.getLogger(__name__)

INSPECT: Final = (sys.executable, "-m", "pagoda_engine.cli", "inspect")
TIMEOUT: Final = 120.0
FIRST_RETRY: Final = 5.0
LAST_RETRY: Final = 300.0
PERMANENT_RETRY: Final = 900.0
"""Seconds; permanent failures are looked at again too, since a repository may be opened, or a file mended."""

_PERMANENT: Final = frozenset(
    {
        ExitCode.USAGE,
        ExitCode.MODEL_NOT_FOUND,
        ExitCode.MODEL_CORRUPT,
        ExitCode.MODEL_UNSUPPORTED,
        ExitCode.ACCESS_DENIED,
    }
)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model and what it is read with: who may read it is part of what is known of it."""

    uri: str
    namespace: str = ""
    secret_name: str = ""
    secret_key: str = ""

    @classmethod
    def of(cls, service: Object) -> ModelRef:
        """The model that a service's spec names."""
        model = service["spec"]["model"]
        secret = model.get("tokenSecret")
        if not secret:
            return cls(model["uri"])
        return cls(model["uri"], service["metadata"]["namespace"], secret["name"], secret.get("key", "HF_TOKEN"))


@dataclass(slots=True)
class _Entry:
    result: ModelFacts | ModelUnreadable | None = None
    failures: int = 0
    reading: asyncio.Task[None] | None = None
    retry_at: float = 0.0
    waiting: set[ServiceKey] = field(default_factory=set)


Inspect = Callable[[str, Mapping[str, str]], Awaitable[ModelFacts | ModelUnreadable]]
"""Reads the facts of a URI in an environment."""


class InspectProcess:
    """Runs `pagoda inspect URI`, which must end within `timeout` seconds; it and its children are gone afterwards."""

    def __init__(self, command: Sequence[str] = INSPECT, timeout: float = TIMEOUT) -> None:
        self._command = tuple(command)
        self._timeout = timeout

    async def __call__(self, uri: str, environment: Mapping[str, str]) -> ModelFacts | ModelUnreadable:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            uri,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            return ModelUnreadable(f"reading {uri} took more than {self._timeout:g} s", permanent=False)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return outcome(process.returncode or 0, stdout, stderr)


class ModelReader:
    """Knows models by their URI. `changed` is called with each service whose model's facts changed."""

    def __init__(
        self,
        cluster: Cluster,
        changed: Callable[[ServiceKey], None],
        *,
        inspect: Inspect | None = None,
        concurrency: int = 2,
    ) -> None:
        self._cluster = cluster
        self._changed = changed
        self._inspect = inspect or InspectProcess()
        self._slots = asyncio.Semaphore(concurrency)
        self._entries: dict[ModelRef, _Entry] = {}

    def facts(self, service: Object) -> ModelFacts | ModelUnreadable | None:
        """What is known of the service's model; None while it is read for the first time. Starts reading if needed."""
        ref = ModelRef.of(service)
        entry = self._entries.setdefault(ref, _Entry())
        if not isinstance(entry.result, ModelFacts):
            entry.waiting.add(key_of(service))
            if entry.reading is None and asyncio.get_running_loop().time() >= entry.retry_at:
                entry.reading = asyncio.create_task(self._keep(ref, entry), name=f"inspect {ref.uri}")
        return entry.result

    def retry_after(self, service: Object) -> float | None:
        """Seconds until a model that could not be read should be asked for again."""
        entry = self._entries.get(ModelRef.of(service))
        if entry is None or entry.reading is not None or isinstance(entry.result, ModelFacts):
            return None
        return max(0.0, entry.retry_at - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Stop all reading."""
        tasks = [entry.reading for entry in self._entries.values() if entry.reading is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, ref: ModelRef, entry: _Entry) -> None:
        try:
            async with self._slots:
                result = await self._read(ref)
        finally:
            entry.reading = None
        known, entry.result = entry.result, result
        if isinstance(result, ModelUnreadable):
            delay = min(FIRST_RETRY * 2.0 ** min(entry.failures, 16), LAST_RETRY)
            entry.failures += 1
            entry.retry_at = asyncio.get_running_loop().time() + (PERMANENT_RETRY if result.permanent else delay)
            logger.warning("model %s: %s", ref.uri, result.message)
        # Also those who see the same failure again: they set the timer of the next attempt.
        waiting, entry.waiting = entry.waiting, set()
        for key in waiting:
            self._changed(key)
        if known != result:
            logger.info("model %s: %s", ref.uri, result)

    async def _read(self, ref: ModelRef) -> ModelFacts | ModelUnreadable:
        environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
        if ref.secret_name:
            try:
                environment["HF_TOKEN"] = await self._token(ref)
            except ClusterError as error:
                return ModelUnreadable(f"the token's Secret can't be read: {error.message}", permanent=False)
            except KeyError:
                where = f"{ref.namespace}/{ref.secret_name}"
                return ModelUnreadable(f"Secret {where} has no key {ref.secret_key!r}; add it", permanent=False)
        try:
            return await self._inspect(ref.uri, environment)
        except (OSError, ValueError) as error:  # no process to be had, or a token that no environment can hold
            return ModelUnreadable(f"pagoda inspect did not start: {error}", permanent=False)

    async def _token(self, ref: ModelRef) -> str:
        secret = await self._cluster.get(SECRET, ref.namespace, ref.secret_name)
        return base64.b64decode(secret.get("data", {})[ref.secret_key]).decode(errors="replace").strip()


def outcome(code: int, stdout: bytes, stderr: bytes) -> ModelFacts | ModelUnreadable:
    """What the end of `pagoda inspect` means."""
    if code == ExitCode.OK:
        try:
            return ModelFacts.from_json(stdout)
        except ValueError as error:
            return ModelUnreadable(f"pagoda inspect answered what is no model facts: {error}", permanent=True)
    lines = stderr.decode(errors="replace").strip().splitlines()
    message = lines[-1].removeprefix("pagoda inspect: error: ") if lines else f"pagoda inspect ended with code {code}"
    return ModelUnreadable(message, permanent=code in _PERMANENT)
