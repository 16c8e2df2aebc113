"""One GET, as plain as can be: thousands of pods are asked, one after the other, and a general client takes three times
the processor time for what it remembers of connections, cookies and proxies.

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
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=ANSWER_LIMIT)
        try:
            writer.write(f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError as error:
                raise ValueError(f"{url} answered a head of more than {ANSWER_LIMIT} bytes") from error
            body = b""
            while len(body) < ANSWER_LIMIT and (piece := await reader.read(ANSWER_LIMIT - len(body))):
                body += piece
        finally:
            writer.close()
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1") or not rest[:3].isdigit():
        raise ValueError(f"{url} does not speak HTTP: {head[:80]!r}")
    return int(rest[:3]), body
