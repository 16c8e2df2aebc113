"""Runs a function in a thread that may be given up: one that never returns must not keep the process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class DaemonThreads:
    """At most `limit` functions at once, those that were given up among them."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, function: Callable[[], ResultT], seconds: float) -> ResultT:
        """The function's result, or what it raises. Raises TimeoutError after `seconds`, with the wait for a turn."""
        async with asyncio.timeout(seconds):
            await self._free.acquire()
            loop = asyncio.get_running_loop()
            result: asyncio.Future[ResultT] = loop.create_future()
            threading.Thread(target=self._work, args=(loop, function, result), name="text", daemon=True).start()
            return await result

    def _work(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[], ResultT], result: asyncio.Future[ResultT]
    ) -> None:
        report: Callable[[Any], None]
        try:
            value: Any = function()
            report = result.set_result
        except Exception as error:  # it belongs to whoever awaits the result
            value, report = error, result.set_exception
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody awaits it any more
            loop.call_soon_threadsafe(self._done, result, report, value)

    def _done(self, result: asyncio.Future[Any], report: Callable[[Any], None], value: Any) -> None:
        self._free.release()
        if not result.done():
            report(value)
