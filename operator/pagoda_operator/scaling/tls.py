"""A server's side of TLS whose certificate and trusted clients change while it listens."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from pagoda_operator.scaling.certificates import Identity


class RotatingTls:
    """`context` is for a listener; each new connection gets what `use` was last given.

    Connections are refused until then. A client may show a certificate; one of an authority that is not trusted ends
    the handshake. There are no session tickets: a resumed session would not show its certificate again.
    """

    def __init__(self) -> None:
        self.context = _server_context()
        # Called in every handshake, also where the client names no server.
        self.context.sni_callback = self._choose
        self._current: ssl.SSLContext | None = None

    def use(self, identity: Identity, client_authorities: str = "") -> None:
        """Show this certificate from now on, and trust clients of these authorities (PEM).

        Raises ssl.SSLError on what is no PEM.
        """
        fresh = _server_context()
        with tempfile.TemporaryDirectory() as folder:  # mode 0700; the ssl module reads chains from files alone
            chain = Path(folder) / "chain.pem"
            chain.write_bytes(identity.key + identity.certificate)
            fresh.load_cert_chain(chain)
        if client_authorities:
            fresh.load_verify_locations(cadata=client_authorities)
        self._current = fresh

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _initial: ssl.SSLContext) -> int | None:
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._current
        return None


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context
