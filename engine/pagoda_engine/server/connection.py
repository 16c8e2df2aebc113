"""Ties work to the connection that asked for it: a client that goes away ends it at once, streaming or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pagoda_engine.process.client import EngineGone
from pagoda_engine.server.errors import ApiError, generation_failed

ResultT = TypeVar("ResultT")

DONE: Final = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The work's result. Cancels it and raises ClientGone when the client goes away first.

    The request's body must have been read: what `receive` has left to say is that the client is gone.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(document: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Server-sent events, ended by `[DONE]`; an error after the first byte becomes an event, since its status is gone.

    A client that reads slowly blocks only itself: `send` waits for its socket, and what the engine makes meanwhile is
    merged into the next events.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        with suppress(ClientGone):
            await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._all()) as events:
            async for chunk in events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _all(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._events) as events:
                async for chunk in events:
                    yield chunk
        except ApiError as error:
            yield error.event()
        except EngineGone as error:
            yield generation_failed(str(error)).event()
        yield DONE
