"""The way into a Service, as kube-proxy makes it: its EndpointSlices feed a TCP proxy that retries nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from e2e.api import Api, Object
from e2e.informer import Informer

from pagoda_operator.local.service_proxy import Address, TcpProxy


def backends(slices: Iterable[Object], port: str) -> list[Address]:
    """Where connections to the named port go: ready endpoints; where there are none, those that still serve.

    The rule is kube-proxy's (KEP-1669, pkg/proxy/topology.go): terminating endpoints are the last resort.
    """
    ready: list[Address] = []
    serving: list[Address] = []
    for one in slices:
        number = next((p["port"] for p in one.get("ports") or () if p.get("name") == port), None)
        if number is None:
            continue
        for endpoint in one.get("endpoints") or ():
            conditions = endpoint.get("conditions", {})
            addresses = [(address, number) for address in endpoint["addresses"]]
            if conditions.get("ready", True):
                ready += addresses
            elif conditions.get("serving") and conditions.get("terminating"):
                serving += addresses
    return ready or serving


class ServiceProxy:
    """A loopback port in front of one port of a Service, from `start` to `stop`."""

    def __init__(self, api: Api, namespace: str, service: str, port: str) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._slices = Informer(api, path, labelSelector=f"kubernetes.io/service-name={service}")
        self._proxy = TcpProxy("127.0.0.1", 0, lambda: backends(self._slices.items.values(), port))
        self._following: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host, port = self._proxy.address
        return f"http://{host}:{port}"

    async def start(self) -> None:
        self._following = asyncio.get_running_loop().create_task(self._slices.run())
        await self._slices.synced()
        await self._proxy.start()

    async def stop(self) -> None:
        await self._proxy.stop()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
