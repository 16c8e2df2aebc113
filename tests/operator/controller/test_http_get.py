"""A pod's answer is read whole, whatever it is; and where there is none, that is an error that a scrape outlives."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from pagoda_operator.controller import http_get
from pagoda_operator.controller.http_get import get


@asynccontextmanager
async def answering(*pieces, host="127.0.0.1", hang=False):
    """The base URL of a server that sends these pieces, one packet each, and the requests that it was sent."""
    requests, serving, ended = [], [], asyncio.Event()

    async def serve(reader, writer):
        serving.append(asyncio.current_task())
        with suppress(ConnectionError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hang:
                await ended.wait()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, host, 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", requests
    finally:
        ended.set()
        await asyncio.gather(*serving)
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_answer_in_pieces_is_read_to_its_end(host):
    body = b"x" * 300_000
    async with answering(b"HTTP/1.1 2", b"00 OK\r\nA: b\r\n\r", b"\n" + body, host=host) as (url, requests):
        assert await get(f"{url}/metrics") == (200, body)
    assert requests[0].startswith(b"GET /metrics HTTP/1.0\r\nHost: ")


async def test_an_error_is_an_answer_too():
    async with answering(b"HTTP/1.0 503 Busy\r\n\r\nloading") as (url, requests):
        assert await get(url) == (503, b"loading")
    assert requests[0].startswith(b"GET / HTTP/1.0\r\n")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", EOFError), (b"SSH-2.0\r\n\r\n", ValueError), (b"HTTP/1.1 200 OK\r\nno end", ValueError)],
)
async def test_what_is_no_answer_is_told_as_such(answer, error):
    async with answering(answer) as (url, _):
        with pytest.raises(error, match=r"127\.0\.0\.1"):
            await get(url)


async def test_nobody_is_waited_for_longer_than_told(monkeypatch):
    monkeypatch.setattr(http_get, "SECONDS", 0.1)
    async with answering(hang=True) as (url, _):
        with pytest.raises(TimeoutError):
            await get(url)


async def test_an_answer_without_end_is_cut(monkeypatch):
    monkeypatch.setattr(http_get, "ANSWER_LIMIT", 100_000)
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    async with answering(head, *[b"x" * 50_000] * 100) as (url, _):
        status, body = await get(url)
    assert status == 200
    assert len(body) < 400_000, "no more than one packet beyond"


async def test_a_port_that_nobody_listens_on_is_an_error():
    async with answering() as (url, _):
        pass
    with pytest.raises(OSError, match=r"refused|Connect"):
        await get(url)
