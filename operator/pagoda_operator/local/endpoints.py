"""Where a service's requests may go: its ready pods, followed through the cluster's watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from pagoda_operator.api.names import SERVICE_LABEL, Object
from pagoda_operator.cluster.interface import Change, Watchable
from pagoda_operator.cluster.resources import POD
from pagoda_operator.local.pod_status import is_ready
from pagoda_operator.local.service_proxy import Address


class Endpoints:
    """The addresses of the ready pods of one InferenceService."""

    def __init__(self, cluster: Watchable, *, namespace: str, service: str, port: int) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._service = service
        self._port = port
        self._ready: dict[str, Object] = {}

    async def run(self) -> NoReturn:
        """Follow the pods until cancelled."""
        async for event in self._cluster.watch(POD, self._namespace, labels={SERVICE_LABEL: self._service}):
            uid = event.object["metadata"]["uid"]
            self._ready.pop(uid, None)
            if event.change is not Change.DELETED and is_ready(event.object):
                self._ready[uid] = event.object
        raise AssertionError("a watch never ends by itself")

    def addresses(self) -> Sequence[Address]:
        """In the order of the pods' names, so that taking turns is even."""
        pods = sorted(self._ready.values(), key=lambda pod: str(pod["metadata"]["name"]))
        return [(pod["status"]["podIP"], self._port) for pod in pods]
