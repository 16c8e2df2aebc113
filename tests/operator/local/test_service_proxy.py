"""Connections through the Service's address reach the backends as kube-proxy would bring them there."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from pagoda_operator.local.service_proxy import TcpProxy


@asynccontextmanager
async def backend(serve):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


def saying(word: bytes):
    async def serve(reader, writer):
        writer.write(word)
        writer.close()

    return serve


async def echo(reader, writer):
    """Answers after the end of what the client sends: needs a half-closed connection to work."""
    writer.write(await reader.read())
    await writer.drain()
    writer.close()


async def ask(address, data: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def test_connections_go_round_the_backends():
    backends = []
    async with (
        backend(saying(b"a")) as a,
        backend(saying(b"b")) as b,
        TcpProxy("127.0.0.1", 0, lambda: backends) as proxy,
    ):
        backends += [a, b]
        assert [await ask(proxy.address) for _ in range(4)] == [b"a", b"b", b"a", b"b"]


async def test_backends_are_asked_for_each_connection():
    ready = []
    async with backend(saying(b"a")) as a, TcpProxy("127.0.0.1", 0, lambda: ready) as proxy:
        with pytest.raises(ConnectionResetError):
            await ask(proxy.address)
        ready.append(a)
        assert await ask(proxy.address) == b"a"


async def test_large_body_and_half_close_pass_unchanged():
    data = bytes(range(256)) * 40_000
    async with backend(echo) as address, TcpProxy("127.0.0.1", 0, lambda: [address]) as proxy:
        assert await ask(proxy.address, data) == data


async def test_unreachable_backend_is_a_reset_and_no_retry(free_port):
    async with backend(saying(b"a")) as a, TcpProxy("127.0.0.1", 0, lambda: [("127.0.0.1", free_port), a]) as proxy:
        with pytest.raises(ConnectionResetError):
            await ask(proxy.address)
        assert await ask(proxy.address) == b"a"


async def test_connection_outlives_its_backends_removal():
    begun = asyncio.Event()

    async def serve(reader, writer):
        word = await reader.readexactly(7)
        begun.set()
        writer.write(word + await reader.read())
        writer.close()

    async with backend(serve) as address:
        backends = [address]
        async with TcpProxy("127.0.0.1", 0, lambda: backends) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            writer.write(b"begun, ")
            async with asyncio.timeout(30):
                await begun.wait()
            backends.clear()
            writer.write(b"ended")
            writer.write_eof()
            assert await reader.read() == b"begun, ended"
            writer.close()


async def test_clients_reset_reaches_the_backend():
    """An engine must learn that nobody listens any more, so that it stops generating."""
    gone = asyncio.Event()

    async def serve(reader, writer):
        try:
            while await reader.read(1):
                pass
        except ConnectionResetError:
            pass
        gone.set()
        writer.close()

    async with backend(serve) as address, TcpProxy("127.0.0.1", 0, lambda: [address]) as proxy:
        _, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"x")
        await writer.drain()
        writer.transport.abort()
        async with asyncio.timeout(30):
            await gone.wait()


async def test_stop_ends_open_connections():
    begun = asyncio.Event()

    async def serve(reader, writer):
        await reader.readexactly(1)
        begun.set()
        await reader.read()
        writer.close()

    async with backend(serve) as address:
        proxy = TcpProxy("127.0.0.1", 0, lambda: [address])
        await proxy.start()
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"x")
        async with asyncio.timeout(30):
            await begun.wait()
            await proxy.stop()
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()


async def test_taken_port_is_an_error_at_start():
    async with TcpProxy("127.0.0.1", 0, list) as first:
        second = TcpProxy("127.0.0.1", first.address[1], list)
        with pytest.raises(OSError, match="in use"):
            await second.start()
