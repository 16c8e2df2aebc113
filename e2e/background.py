"""An event loop in a thread of its own, so that nodes and proxies live on while a test waits or asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

SETTLE_SECONDS = 0.2
"""Aborted connections are closed by callbacks of the loop, which nobody can wait for."""


class Background:
    """A context manager. Processes started in the loop die with its thread, hence one thread for all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._services: dict[str, Future[None]] = {}
        self._exits = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="e2e", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the services and wait for them, leave what was entered, end the thread."""
        try:
            self.run(self._wind_up())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Result], *, seconds: float = 60) -> Result:
        """Its result. Raises what it raises, TimeoutError when it takes longer."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def enter(self, manager: AbstractAsyncContextManager[Result]) -> Result:
        """Enter it in the loop; it is left at the end, after the services."""
        return self.run(self._exits.enter_async_context(manager))

    def start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it until the end; `check` tells when it ended before."""
        self._services[name] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def check(self) -> None:
        """Raises RuntimeError where a service has ended: without it no test means anything."""
        for name, future in self._services.items():
            if future.done():
                raise RuntimeError(f"the harness' {name} ended") from future.exception()

    async def _wind_up(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._exits.aclose()
        await asyncio.sleep(SETTLE_SECONDS)
        await self._loop.shutdown_asyncgens()
