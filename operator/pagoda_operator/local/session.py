"""One sitting of `pagoda local up`: from the file to an answer, or to Ctrl-C."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pagoda_engine.contract import ExitCode
from pagoda_operator.api.crd import COLUMNS
from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import ClusterError
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, POD, SECRET
from pagoda_operator.local.document import Document, DocumentError, read_document
from pagoda_operator.local.progress import ProgressLine
from pagoda_operator.local.question import NoAnswer, answer, curl
from pagoda_operator.local.table import table
from pagoda_operator.local.verdict import condition, failure, is_serving

LOOK = 0.2
"""Seconds between two looks at the service; it costs a copy of two small objects."""

QUEUE_PATIENCE = 5.0
"""Seconds that a service which serves may take to tell of its queue, so that the table is whole; an engine of another
image may never tell."""


END_SECONDS = 30
HINT_SECONDS = 2.0
"""Seconds that requests have once all is to end, and after which the user is told what is waited for."""


class UpError(Exception):
    """Nothing was started, or it came to nothing: sentences for the user, and the code to end with."""

    def __init__(self, message: str, code: int = ExitCode.CRASHED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class UpOptions:
    """`cache` is the folder of models, shared by all runs; `ask` None serves until a signal comes."""

    file: Path
    port: int
    cache: Path
    ask: str | None = None


class Session:
    """One user's sitting: from the file to an answer, or to Ctrl-C. `stop` counts the wishes to end."""

    def __init__(
        self, cluster: MemoryCluster, document: Document, options: UpOptions, out: TextIO, stop: asyncio.Queue[int]
    ) -> None:
        self._cluster = cluster
        self._document = document
        self._options = options
        self._out = out
        self._stop = stop
        metadata = document.service["metadata"]
        self._namespace, self._name = metadata["namespace"], metadata["name"]

    async def run(self) -> int:
        """Returns the exit code. Raises UpError."""
        await self._apply(self._document)
        try:
            service = await self._until_serving()
            if service is None:
                return 128 + signal.SIGINT
            print(table([service], COLUMNS, datetime.now(UTC)), file=self._out, flush=True)
            if self._options.ask is not None:
                await self._ask(service["status"], self._options.ask)
            else:
                await self._serve(service["status"])
        finally:
            await self._drain()
        return ExitCode.OK

    async def _apply(self, document: Document) -> None:
        for secret in document.secrets:
            await self._cluster.apply(SECRET, secret, force=True)
        await self._cluster.apply(INFERENCE_SERVICE, document.service, force=True)

    async def _service(self) -> Object:
        return await self._cluster.get(INFERENCE_SERVICE, self._namespace, self._name)

    async def _until_serving(self) -> Object | None:
        """The service once it is ready; None where the user gave up. Raises UpError where it never will be."""
        now = asyncio.get_running_loop().time
        line = ProgressLine(sys.stderr, now)
        serving_since: float | None = None
        try:
            while self._stop.empty():
                service = await self._service()
                if is_serving(service):
                    serving_since = now() if serving_since is None else serving_since
                    if "queue" in service["status"] or now() - serving_since > QUEUE_PATIENCE:
                        return service
                if failed := failure(service, await self._cluster.list(POD, self._namespace)):
                    raise UpError("\n".join(failed.lines), failed.exit_code)
                line.show(_doing(service))
                await asyncio.sleep(LOOK)
        finally:
            line.finish()
        return None

    async def _ask(self, status: Object, question: str) -> None:
        print(f"> {question}", file=self._out, flush=True)
        try:
            async for piece in answer(status["url"], status["model"], question):
                print(piece, end="", file=self._out, flush=True)
        except NoAnswer as error:
            raise UpError(f"no answer: {error}") from error
        print(file=self._out, flush=True)

    async def _serve(self, status: Object) -> None:
        """Until a signal; an edit of the file is applied, and turns of the Ready condition are told."""
        print(f"{curl(status['url'], status['model'])}\n\nCtrl-C ends it; edits of {self._options.file} are applied.")
        edited, told = _version(self._options.file), ("Serving", "")
        while self._stop.empty():
            if (version := _version(self._options.file)) != edited:
                edited = version
                await self._apply_edit()
            ready = condition(await self._service(), "Ready")
            if told[0] != ready["reason"]:
                print(f"{ready['reason']}: {ready['message']}", file=sys.stderr, flush=True)
            told = (ready["reason"], ready["message"])
            await asyncio.sleep(LOOK)

    async def _apply_edit(self) -> None:
        try:
            document = read_document(self._options.file)
            if document.service["metadata"]["name"] != self._name:
                raise DocumentError(f"metadata.name can't change while it serves; it is {self._name}")
            await self._apply(document)
        except (DocumentError, ClusterError) as error:
            print(f"{self._options.file} was not applied: {error}", file=sys.stderr, flush=True)

    async def _drain(self) -> None:
        """Delete the service and wait until its pods have ended; a second signal kills them.

        Requests have less time than a roll-out gives them: whoever ends it all is waiting.
        """
        service = await self._service()
        await self._cluster.delete(INFERENCE_SERVICE, self._namespace, self._name, uid=service["metadata"]["uid"])
        signals, hint_at = self._stop.qsize(), asyncio.get_running_loop().time() + HINT_SECONDS
        while pods := await self._cluster.list(POD, self._namespace):
            grace = 0 if self._stop.qsize() > max(signals, 1) else END_SECONDS
            for pod in pods:
                metadata = pod["metadata"]
                await self._cluster.delete(
                    POD, self._namespace, metadata["name"], uid=metadata["uid"], grace_seconds=grace
                )
            if asyncio.get_running_loop().time() > hint_at:
                hint_at = math.inf
                print(
                    f"running requests have {END_SECONDS} s to end; Ctrl-C again ends them", file=sys.stderr, flush=True
                )
            await asyncio.sleep(LOOK / 4)


def _doing(service: Object) -> str:
    ready = condition(service, "Ready")
    return f"{ready['reason']}: {ready['message']}" if ready else "Starting: the service is being read"


def _version(file: Path) -> int:
    """Changes with the file; 0 while an editor has it away."""
    return file.stat().st_mtime_ns if file.exists() else 0
