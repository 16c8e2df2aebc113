"""One GET, as plain as can be: thousands of pods are asked, one after the other, and a general client takes several
times the processor time for what it remembers of connections, cookies and proxies.

HTTP/1.0 (RFC 1945): the answer comes whole and ends with the connection. Every HTTP/1.1 server speaks it (RFC 9112,
section 2.5).
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

SECONDS: Final = 3.0
ANSWER_LIMIT: Final = 4 << 20
"""Seconds that an answer may take; bytes that are read of it."""


async def get(url: str) -> tuple[int, bytes]:
    """Status and body of `http://HOST:PORT/PATH`, never through a proxy.

    Raises OSError, EOFError, TimeoutError where there is no answer, ValueError where it is none of HTTP.
    """
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode()
    async with asyncio.timeout(SECONDS):
        answer = await _exchange(parts.hostname or "", parts.port or 80, request)
    head, end, body = answer.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    if not answer:
        raise EOFError(f"{url} closed the connection")
    if not version.startswith(b"HTTP/1") or not rest[:3].isdigit() or not end:
        raise ValueError(f"{url} does not speak HTTP: {head[:80]!r}")
    return int(rest[:3]), body


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_connection(lambda: _Exchange(loop.create_future()), host, port)
    try:
        transport.write(request)
        return await exchange.answer
    finally:
        transport.close()


class _Exchange(asyncio.Protocol):
    """Gathers all that comes until the connection ends. Streams would cost as much again."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self.answer = answer
        self._came = bytearray()

    def data_received(self, data: bytes) -> None:
        self._came += data
        if len(self._came) >= ANSWER_LIMIT:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(bytes(self._came))
        else:
            self.answer.set_exception(error)
