"""The cluster's DNS: names of Services, for pods.

Every Service answers as a headless one does, with the addresses of its ready endpoints, since nothing here makes
cluster IPs work. So a pod that dials a Service by name must find its port equal to the target port.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address

from e2e.api import Api, Object
from e2e.informer import Informer

DOMAIN = "cluster.local"
PORT = 53
A, IN = 1, 1
ANSWER, AUTHORITATIVE, RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0080
NAME_ERROR = 3
HEADER = struct.Struct("!6H")
TTL_SECONDS = 1


def resolv_conf(server: str, namespace: str) -> str:
    """A pod's /etc/resolv.conf as a kubelet writes it (ClusterFirst)."""
    return f"search {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\nnameserver {server}\noptions ndots:5\n"


def addresses(slices: Iterable[Object], name: str) -> list[str] | None:
    """Of `SERVICE.NAMESPACE.svc.cluster.local`: its ready endpoints; None where there is no such Service."""
    labels = name.lower().rstrip(".").split(".")
    if labels[2:] != ["svc", *DOMAIN.split(".")]:
        return None
    service, namespace = labels[:2]
    found = [
        one
        for one in slices
        if one["metadata"]["namespace"] == namespace
        and one["metadata"]["labels"].get("kubernetes.io/service-name") == service
    ]
    ready = [e for one in found for e in one.get("endpoints") or () if e.get("conditions", {}).get("ready", True)]
    return sorted({address for endpoint in ready for address in endpoint["addresses"]}) if found else None


def answer(query: bytes, slices: Iterable[Object]) -> bytes:
    """The answer to a query of one question (RFC 1035, 4.1). Raises ValueError for what is no such query."""
    try:
        number, flags, questions, *_ = HEADER.unpack_from(query)
        name, end = _name(query, HEADER.size)
        kind, group = struct.unpack_from("!2H", query, end)
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a DNS query: {error}") from None
    if flags & ANSWER or questions != 1:
        raise ValueError("not a DNS query of one question")
    found = addresses(slices, name)
    records = found if found and (kind, group) == (A, IN) else []
    flags = ANSWER | AUTHORITATIVE | RECURSION_AVAILABLE | (flags & 0x0100) | (NAME_ERROR if found is None else 0)
    head = HEADER.pack(number, flags, 1, len(records), 0, 0)
    # Each record begins with a pointer to the question's name.
    tail = [
        struct.pack("!3HIH", 0xC000 | HEADER.size, A, IN, TTL_SECONDS, 4) + IPv4Address(record).packed
        for record in records
    ]
    return b"".join([head, query[HEADER.size : end + 4], *tail])


def _name(query: bytes, start: int) -> tuple[str, int]:
    """The name at `start`, and where it ends. Questions hold no pointers."""
    labels = []
    while length := query[start]:
        labels.append(query[start + 1 : start + 1 + length].decode("ascii", errors="replace"))
        start += 1 + length
    return ".".join(labels), start + 1


class ClusterDns:
    """Answers at port 53 of `host` while `run` runs."""

    def __init__(self, api: Api, host: str) -> None:
        self._slices = Informer(api, "/apis/discovery.k8s.io/v1/endpointslices")
        self._host = host

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Protocol(self._slices), local_addr=(self._host, PORT)
        )
        try:
            await self._slices.run()
        finally:
            transport.close()


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, slices: Informer) -> None:
        self._slices = slices
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if self._transport is not None:
            with suppress(ValueError):  # noise, to which silence is the answer
                self._transport.sendto(answer(data, self._slices.items.values()), address)
