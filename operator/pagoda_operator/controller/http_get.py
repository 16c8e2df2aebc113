"""One GET, as plain as can be: thousands of pods are asked, one after the other, and a general client takes several
times the processor time for what it remembers of connections, cookies and proxies.

HTTP/1.0 (RFC 1945): the answer comes whole and ends with the connection. Every HTTP/1.1 server speaks it (RFC 9112,
section 2.5).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

SECONDS: Final = 3.0
ANSWER_LIMIT: Final = 4 << 20
"""Seconds that an answer may take; bytes that are read of it."""
PIECE: Final = 64 << 10


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
    """On a bare socket: streams cost half as much again."""
    loop, answer = asyncio.get_running_loop(), bytearray()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (host, port))
        await loop.sock_sendall(connection, request)
        while len(answer) < ANSWER_LIMIT and (piece := await loop.sock_recv(connection, PIECE)):
            answer += piece
    return bytes(answer)
