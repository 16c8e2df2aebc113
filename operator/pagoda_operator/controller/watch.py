"""The watch layer on an API server: kopf, and of kopf nothing else.

`on.event` handlers alone: no finalizers, no annotations, no patches, no Events, no peering. kopf gets a thread and an
event loop of its own, because it takes SIGTERM for itself, and on its way out it cancels every task of its loop that
is younger than itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import kopf

from pagoda_operator.cluster.connection import Connection
from pagoda_operator.cluster.interface import Change, WatchEvent
from pagoda_operator.cluster.resources import Resource
from pagoda_operator.controller.sources import Listed, Sink, WatchFailed, labels_for

logger = logging.getLogger(__name__)

CREDENTIALS_LIFE: Final = datetime.timedelta(minutes=10)
"""kopf asks for new credentials so often; ServiceAccount tokens live an hour, and are renewed when 80 % are over."""


ERROR_BACKOFFS: Final = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0)
"""Seconds between kopf's attempts at one request, which it can't be woken from: an API server that is back is not left
waiting. After the last the watch layer ends, and is run anew."""
STOP_SECONDS: Final = 30.0
"""How long kopf may take to end; its thread is then left to itself."""


class KopfSource:
    """Watches an API server. Runs until cancelled, and can be run again."""

    def __init__(self, connection: Connection, namespaces: Sequence[str] = ()) -> None:
        self._connection = connection
        self._namespaces = namespaces

    async def run(self, resources: Sequence[Resource], sink: Sink, listed: Listed) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[WatchFailed] = loop.create_future()
        stop = threading.Event()

        def deliver(event: WatchEvent) -> None:
            # A loop that is closed has nobody left to tell.
            if not stop.is_set():
                loop.call_soon_threadsafe(sink, event)

        def deliver_listing() -> None:
            if not stop.is_set():
                loop.call_soon_threadsafe(listed)

        def work() -> None:
            failure = WatchFailed("the watch layer ended")
            try:
                asyncio.run(self._operate(resources, deliver, deliver_listing, stop))
            except Exception as error:
                failure = WatchFailed(f"the watch layer ended: {error}", status=getattr(error, "status", None))
                failure.__cause__ = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set_result, failure)

        thread = threading.Thread(target=work, name="watch", daemon=True)
        thread.start()
        try:
            raise await asyncio.shield(ended)
        finally:
            stop.set()
            await asyncio.wait([ended], timeout=STOP_SECONDS)

    async def _operate(self, resources: Sequence[Resource], sink: Sink, listed: Listed, stop: threading.Event) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for resource in resources:
            kopf.on.event(
                resource.group, resource.version, resource.plural, registry=registry, id=f"watch-{resource.plural}"
            )(_handler(resource, sink, listed))
        await kopf.operator(
            registry=registry,
            settings=_settings(resources),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            stop_flag=stop,
        )

    async def _login(self, **_: Any) -> Any:
        credentials = await self._connection.credentials()
        return kopf.ConnectionInfo(
            server=credentials.server,
            ca_path=credentials.ca_path,
            insecure=not credentials.verify,
            token=credentials.token,
            certificate_path=credentials.certificate_path,
            private_key_path=credentials.key_path,
            proxy_url=credentials.proxy,
            trust_env=True,
            expiration=datetime.datetime.now(datetime.UTC) + CREDENTIALS_LIFE,
        )


def _handler(resource: Resource, sink: Sink, listed: Listed) -> Any:
    async def on_event(event: Mapping[str, Any], **_: Any) -> None:
        # What kopf lists, at first and after a version that expired, has no type.
        sink(WatchEvent(Change(event["type"] or Change.ADDED), resource, event["object"]))
        if event["type"] is None:
            listed()

    return on_event


def _settings(resources: Sequence[Resource]) -> Any:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # kinds that come later are discovered by the controller
    # A watch that is silent for longer than the API server's bookmarks are apart (60 s) is dead.
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    for resource in resources:
        if labels := labels_for(resource):
            selector = ",".join(f"{name}={value}" for name, value in labels.items())
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = selector
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = ERROR_BACKOFFS
    settings.watching.reconnect_backoff = 0.5
    # A worker lives as long as its object has events; the first listing of thousands must not wait for idle ones.
    settings.queueing.worker_limit = 256
    settings.queueing.idle_timeout = 0.05
    settings.process.ultimate_exiting_timeout = None  # it ends our process by SIGKILL; ending is our business
    return settings
