"""Runs the application: the port, the engine process, the signals, the drain, and the exit code it all comes to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from pagoda_engine.contract import ExitCode
from pagoda_engine.ipc.messages import Ready
from pagoda_engine.process.supervisor import Death, EngineProcess
from pagoda_engine.server.signals import Signals
from pagoda_engine.server.state import Serving

LAST_ANSWER_SECONDS: Final = 3
"""How long clients have to read an error that ends their request, before the port closes."""

_LOOK_SECONDS: Final = 1


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own answer to signals: the drain is ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One run of `pagoda serve`, from listening to the exit code."""

    def __init__(self, serving: Serving, app: ASGIApp, listener: socket.socket, signals: Signals) -> None:
        self._serving = serving
        self._listener = listener
        self._signals = signals
        level = serving.args.uvicorn_log_level
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_level=level,
                access_log=level in ("info", "debug", "trace"),
                server_header=False,
                timeout_graceful_shutdown=LAST_ANSWER_SECONDS,
            )
        )

    async def run(self, process: EngineProcess) -> Death:
        """Serve until a signal has been obeyed, exit code OK, or until the engine process ends. Raises PagodaError."""
        http = asyncio.create_task(self._uvicorn.serve(sockets=[self._listener]))
        engine = asyncio.create_task(self._serving.client.run(process, self._on_ready))
        drain = asyncio.create_task(self._drain())
        tasks: set[asyncio.Task[Any]] = {http, engine, drain}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not engine.done():
                return Death(ExitCode.OK, "")
            death = engine.result()
            await self._idle(LAST_ANSWER_SECONDS)
            return death
        finally:
            await self._close(http, tasks)

    async def _close(self, http: asyncio.Task[None], tasks: set[asyncio.Task[Any]]) -> None:
        """Close the port first, so that nobody comes to a server whose engine is about to end."""
        self._uvicorn.should_exit = True
        self._uvicorn.force_exit = self._signals.end_now.is_set()
        await asyncio.wait({http})
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if not http.cancelled():
            http.result()

    async def _drain(self) -> None:
        """Once asked to end: not ready at once, but taking requests until the endpoints have forgotten this pod."""
        serving = self._serving
        await self._signals.end.wait()
        serving.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(serving.args.drain_delay):
                await self._signals.end_now.wait()
        serving.refusing = True
        await self._first(
            serving.args.shutdown_timeout, serving.idle.wait(), self._signals.end_now.wait(), self._stuck()
        )
        serving.client.abandon("This server was shut down before the answer was complete.")
        await self._idle(LAST_ANSWER_SECONDS)

    async def _idle(self, seconds: float) -> None:
        """Wait for the last byte of every answer, but no longer than `seconds`, nor than the user is willing to."""
        await self._first(seconds, self._serving.idle.wait(), self._signals.end_now.wait())

    async def _stuck(self) -> None:
        """Return when the engine makes no progress. A pod on its way out is probed no more, so that we have to look."""
        while self._serving.healthy:  # noqa: ASYNC110 - it is a clock that says so, and no event
            await asyncio.sleep(_LOOK_SECONDS)

    @staticmethod
    async def _first(seconds: float, *events: Coroutine[Any, Any, Any]) -> None:
        """Wait for one of the events, but no longer than `seconds`."""
        waits = [asyncio.create_task(event) for event in events]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _on_ready(self, ready: Ready) -> None:
        self._serving.engine_ready(ready)
        print(f"ready: {', '.join(self._serving.names)}", file=sys.stderr, flush=True)
