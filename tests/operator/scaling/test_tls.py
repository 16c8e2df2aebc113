"""A listener's certificate and the clients that it trusts change under it, and no connection is dropped for it."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

import pytest

from pagoda_operator.scaling.certificates import Authorities
from pagoda_operator.scaling.tls import RotatingTls

HOST = "localhost"


def server_authority():
    return Authorities().renewed(datetime.now(UTC))


def identity_of(authorities):
    return authorities.issue((HOST,), datetime.now(UTC))


@pytest.fixture
def client(tmp_path):
    """`client(trusted, shown)`: trusts these authorities, and shows a certificate where it has one."""

    def make(trusted: Authorities, shown: bytes | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=trusted.bundle.decode())
        if shown is not None:
            chain = tmp_path / "client.pem"
            chain.write_bytes(shown)
            context.load_cert_chain(chain)
        return context

    return make


@pytest.fixture
async def listener():
    """An echo server; answers first with the common name that the client showed."""
    tls = RotatingTls()

    async def serve(reader, writer):
        peer = writer.get_extra_info("peercert") or {}
        names = [value for part in peer.get("subject", ()) for key, value in part if key == "commonName"]
        writer.write(f"{','.join(names)}\n".encode())
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context)
    tls.port = server.sockets[0].getsockname()[1]
    yield tls
    server.close()
    await server.wait_closed()


class Refused(Exception):
    """The server ended the handshake."""


async def connect(listener, context):
    """Reader, writer, and the name that the server saw. Raises Refused, SSLCertVerificationError."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context, server_hostname=HOST)
    except ConnectionResetError as error:
        raise Refused from error
    try:
        line = await reader.readline()
    except OSError:
        line = b""
    if not line:  # in TLS 1.3 a client learns of its refusal when it reads
        writer.close()
        raise Refused
    return reader, writer, line.decode().rstrip("\n")


async def name_seen(listener, context):
    _, writer, name = await connect(listener, context)
    writer.close()
    await writer.wait_closed()
    return name


async def test_until_there_is_a_certificate_nobody_gets_in(listener, client):
    with pytest.raises(Refused):
        await connect(listener, client(server_authority()))


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(listener, client):
    """A connection outlives the change of the certificate that it began with."""
    first, second = server_authority(), server_authority()
    listener.use(identity_of(first))
    reader, writer, _ = await connect(listener, client(first))
    listener.use(identity_of(second))
    assert await name_seen(listener, client(second)) == ""
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(listener, client(first))
    writer.write(b"still there\n")
    assert await reader.readline() == b"still there\n"
    writer.close()
    await writer.wait_closed()


async def test_a_client_is_known_by_its_certificate_or_not_at_all(listener, client, client_authority):
    """Showing none is allowed; one of another authority, also of the same name, ends the handshake."""
    server, clients, others = server_authority(), client_authority(), client_authority()
    listener.use(identity_of(server), clients.pem)
    assert await name_seen(listener, client(server)) == ""
    assert await name_seen(listener, client(server, clients.sign("front-proxy"))) == "front-proxy"
    with pytest.raises(Refused):
        await connect(listener, client(server, others.sign("front-proxy")))


async def test_the_authorities_of_clients_are_replaced_and_not_added_to(listener, client, client_authority):
    """Once the trusted authority is another one, certificates of the former are refused."""
    server, former, latter = server_authority(), client_authority(), client_authority()
    listener.use(identity_of(server), former.pem)
    shown = former.sign("front-proxy")
    assert await name_seen(listener, client(server, shown)) == "front-proxy"
    listener.use(identity_of(server), latter.pem)
    assert await name_seen(listener, client(server, latter.sign("front-proxy"))) == "front-proxy"
    with pytest.raises(Refused):
        await connect(listener, client(server, shown))
