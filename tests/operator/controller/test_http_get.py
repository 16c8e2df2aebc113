"""A pod's answer is read whole, whatever it is; and where there is none, that is an error that a scrape outlives."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from pagoda_operator.controller import http_get
from pagoda_operator.controller.http_get import get


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def ask(request):
    """GETs from a server that sends these pieces: the answer, and what the server was sent.

    Locally it is done on the one loop, in a cluster on the other, and their transports differ.
    """

    def do(*pieces, path="", **served):
        async def scenario():
            async with answering(*pieces, **served) as (url, requests):
                return await get(url + path), requests[0]

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(scenario())

    return do


@asynccontextmanager
async def answering(*pieces, host="127.0.0.1", hang=False):
    """The base URL of a server, one packet a piece, and the requests that it was sent."""
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
def test_an_answer_in_pieces_is_read_to_its_end(ask, host):
    body = b"x" * 300_000
    answer, request = ask(b"HTTP/1.1 2", b"00 OK\r\nA: b\r\n\r", b"\n" + body, path="/metrics", host=host)
    assert answer == (200, body)
    assert request.startswith(b"GET /metrics HTTP/1.0\r\nHost: ")


def test_an_error_is_an_answer_too(ask):
    answer, request = ask(b"HTTP/1.0 503 Busy\r\n\r\nloading")
    assert answer == (503, b"loading")
    assert request.startswith(b"GET / HTTP/1.0\r\n")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", EOFError), (b"SSH-2.0\r\n\r\n", ValueError), (b"HTTP/1.1 200 OK\r\nno end", ValueError)],
)
def test_what_is_no_answer_is_told_as_such(ask, answer, error):
    with pytest.raises(error, match=r"127\.0\.0\.1"):
        ask(answer)


def test_nobody_is_waited_for_longer_than_told(ask, monkeypatch):
    monkeypatch.setattr(http_get, "SECONDS", 0.1)
    with pytest.raises(TimeoutError):
        ask(hang=True)


def test_an_answer_without_end_is_cut(ask, monkeypatch):
    monkeypatch.setattr(http_get, "ANSWER_LIMIT", 100_000)
    (status, body), _ = ask(b"HTTP/1.0 200 OK\r\n\r\n", *[b"x" * 50_000] * 100)
    assert status == 200
    assert len(body) < 400_000, "no more than one packet beyond"


async def test_a_port_that_nobody_listens_on_is_an_error():
    async with answering() as (url, _):
        pass
    with pytest.raises(OSError, match=r"refused|Connect"):
        await get(url)
