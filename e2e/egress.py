"""The pods' way out: an HTTP proxy on their bridge that tunnels (CONNECT), and nothing else.

Where this machine itself reaches the world through a proxy (HTTPS_PROXY), tunnels go through that one.
"""

from __future__ import annotations

import asyncio
import base64
import os
from urllib.parse import unquote, urlsplit

HEAD_LIMIT_SECONDS = 30.0
CHUNK = 1 << 16


class EgressProxy:
    """Listens on `host` at a free port."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the egress proxy is not started")
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> EgressProxy:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(HEAD_LIMIT_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split(" ", 2)
                if method != "CONNECT":
                    writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
                    return
                source, upstream = await _open(target)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, upstream))
                group.create_task(_pump(source, writer))
        except* (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the pod sees its connection closed, as from any proxy
        finally:
            for side in (writer, upstream):
                if side is not None:
                    side.close()


async def _open(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to `host:port`. Raises OSError where there is none."""
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if not proxy:
        host, port = target.rsplit(":", 1)
        return await asyncio.open_connection(host.strip("[]"), int(port))
    parts = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 8080)
    login = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n".encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    if answer.split(" ", 2)[1] != "200":
        writer.close()
        raise OSError(f"{parts.hostname} refuses a tunnel to {target}: {answer.splitlines()[0]}")
    return reader, writer


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
