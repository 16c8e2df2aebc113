"""Opens the port, before anything slow happens."""

from __future__ import annotations

import errno
import socket

from pagoda_engine.errors import PagodaError, PortInUse


class BadAddress(PagodaError):
    """The address to listen on can't be used at all."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 means any free one. Raises PortInUse or BadAddress, each saying what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise BadAddress(f"--host {host} is no address of this machine ({error.strerror}); try 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _explain(error, host, port) from error
    listener.setblocking(False)
    return listener


def _explain(error: OSError, host: str, port: int) -> PagodaError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} of {host} is taken by another process; stop it (`ss -ltnp 'sport = :{port}'` names it), "
            "choose another with --port, or let the system choose with --port 0"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return BadAddress(f"port {port} needs privileges that this user has not; choose one above 1023 with --port")
    return BadAddress(f"can't listen on {host}:{port} ({error.strerror}); choose another --host or --port")
