"""The watch layer on an API server: kopf's streams of changes, and of kopf nothing else.

kopf lists, watches, goes on from where a watch ended, lists anew what has expired, and logs in again. `on.event` would
be its public way in; but for each event it then copies the object several times, to tell what changed, and keeps a
record and a worker of each object: 0.8 ms of processor time for a Deployment, more than twenty for a service on its way
to Ready, and none of it is of use here. So its streams are read where its own handlers read them. That is a seam of
kopf's inside (`_cogs`), which no version of it promises: pyproject.toml says which versions are known to have it, this
file is the only one that touches it, and its test tells when it has moved.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import kopf
from kopf._cogs.clients import auth, watching
from kopf._cogs.structs import credentials, references

from pagoda_operator.cluster.connection import Connection
from pagoda_operator.cluster.interface import Change, WatchEvent
from pagoda_operator.cluster.resources import Resource
from pagoda_operator.controller.sources import Listed, Sink, WatchFailed, labels_for, namespaces_for

CREDENTIALS_LIFE: Final = datetime.timedelta(minutes=10)
"""kopf is given new credentials so often; ServiceAccount tokens live an hour, and are renewed when 80 % are over."""
ERROR_BACKOFFS: Final = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0)
"""Seconds between kopf's attempts at one request, which it can't be woken from: an API server that is back is not left
waiting. After the last the watch layer ends, and is run anew."""


class KopfSource:
    """Watches an API server. Runs until cancelled, and can be run again."""

    def __init__(self, connection: Connection, namespaces: Sequence[str] = ()) -> None:
        self._connection = connection
        self._namespaces = namespaces

    async def run(self, resources: Sequence[Resource], sink: Sink, listed: Listed) -> None:
        vault = credentials.Vault()
        auth.vault_var.set(vault)
        settings = _settings(resources)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._log_in(vault), name="log in")
                for resource in resources:
                    for namespace in namespaces_for(resource, self._namespaces):
                        stream = watching.infinite_watch(
                            settings=settings, resource=_reference(resource), namespace=namespace
                        )
                        tasks.create_task(_follow(stream, resource, sink, listed), name=f"watch {resource}")
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if not isinstance(first, Exception):
                raise first from None
            raise WatchFailed(f"the watch layer ended: {first}", status=getattr(first, "status", None)) from first
        finally:
            await vault.close()

    async def _log_in(self, vault: Any) -> NoReturn:
        """Give kopf credentials whenever it has none that are good: at first, when they are old, after a 401."""
        while True:
            await vault.wait_for_emptiness()
            known = await self._connection.credentials()
            information = kopf.ConnectionInfo(
                server=known.server,
                ca_path=known.ca_path,
                insecure=not known.verify,
                token=known.token,
                certificate_path=known.certificate_path,
                private_key_path=known.key_path,
                proxy_url=known.proxy,
                trust_env=True,
                expiration=datetime.datetime.now(datetime.UTC) + CREDENTIALS_LIFE,
            )
            await vault.populate({"pagoda": information})


async def _follow(stream: Any, resource: Resource, sink: Sink, listed: Listed) -> None:
    async for event in stream:
        if event is watching.Bookmark.LISTED:
            listed()
        elif event["type"] != "BOOKMARK":
            # What was listed, at first and after a version that expired, has no type.
            sink(WatchEvent(Change(event["type"] or Change.ADDED), resource, event["object"]))


def _reference(resource: Resource) -> Any:
    return references.Resource(
        resource.group, resource.version, resource.plural, kind=resource.kind, namespaced=resource.namespaced
    )


def _settings(resources: Sequence[Resource]) -> Any:
    settings = kopf.OperatorSettings()
    # A watch that is silent for longer than the API server's bookmarks are apart (60 s) is dead.
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 100  # a page is in memory whole
    settings.watching.reconnect_backoff = 0.5
    for resource in resources:
        if labels := labels_for(resource):
            selector = ",".join(f"{name}={value}" for name, value in labels.items())
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = selector
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = ERROR_BACKOFFS
    return settings
