"""What kube-proxy does for one Service: TCP connections spread over the ready pods."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from itertools import count

Address = tuple[str, int]

CHUNK = 64 * 1024
CONNECT_SECONDS = 5.0


class TcpProxy:
    """Listens on `host:port` and hands each connection to the next of `backends()`, asked anew for each.

    As with kube-proxy, nothing is retried: where there is no backend, or it can't be reached, the connection is reset.
    A connection stays with its backend until both sides are through, also after `backends` has forgotten it.
    Port 0 takes a free one.
    """

    def __init__(self, host: str, port: int, backends: Callable[[], Sequence[Address]]) -> None:
        self._host = host
        self._port = port
        self._backends = backends
        self._turn = count()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Host and port as listened on. Raises RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("the proxy listens on nothing; start it first")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Listen. Raises OSError (EADDRINUSE) where the port is taken."""
        self._server = await asyncio.start_server(self._accept, self._host, self._port)

    async def stop(self) -> None:
        """Close the listener, then reset what connections are left."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> TcpProxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sides = [writer]
        try:
            upstream = await self._connect()
            if upstream is None:
                return
            sides.append(upstream[1])
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, upstream[1]))
                group.create_task(_pump(upstream[0], writer))
            for side in sides:
                side.close()
        except* OSError:
            pass  # one side reset the connection, and so does the other below
        finally:
            for side in sides:
                if not side.is_closing():
                    _reset(side)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        backends = self._backends()
        if not backends:
            return None
        host, port = backends[next(self._turn) % len(backends)]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(host, port)
        except OSError:  # TimeoutError is one
            return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of the stream, then pass the end on: the other direction may still be open."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the peer sees an error, and not an end that looks whole."""
    linger_for_nothing = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)
    writer.transport.abort()
