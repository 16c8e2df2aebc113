"""A kind's objects as they are now, kept up to date by list and watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from e2e.api import Api, ApiError, Object

Key = tuple[str, str]
"""(namespace, name); the namespace is empty for cluster-scoped kinds."""

RETRY_SECONDS = 0.5


def key_of(obj: Object) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Informer:
    """`items` holds the collection at `path`; `on_change(object, gone)` is called after each change of it."""

    def __init__(
        self,
        api: Api,
        path: str,
        on_change: Callable[[Object, bool], None] = lambda _object, _gone: None,
        **params: str,
    ) -> None:
        self.items: dict[Key, Object] = {}
        self._api = api
        self._path = path
        self._params = params
        self._on_change = on_change
        self._synced = asyncio.Event()

    async def synced(self) -> None:
        """Returns once `items` was complete for the first time."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow until cancelled: an ended watch and an expired version are answered by a new list."""
        while True:
            try:
                version = await self._list()
                self._synced.set()
                async for change, obj in self._api.watch(self._path, resource_version=version, **self._params):
                    if change != "BOOKMARK":
                        self._set(obj, gone=change == "DELETED")
            except ApiError as error:
                if error.code < 500 and error.code not in (404, 410, 429):
                    raise
            except (aiohttp.ClientError, TimeoutError):
                pass  # the server is not there at the moment
            await asyncio.sleep(RETRY_SECONDS)

    async def _list(self) -> str:
        document = await self._api.get(self._path, **self._params)
        fresh = {key_of(item): item for item in document.get("items", ())}
        for key in self.items.keys() - fresh.keys():
            self._set(self.items[key], gone=True)
        for item in fresh.values():
            self._set(item, gone=False)
        return str(document["metadata"]["resourceVersion"])

    def _set(self, obj: Object, *, gone: bool) -> None:
        if gone:
            self.items.pop(key_of(obj), None)
        else:
            self.items[key_of(obj)] = obj
        self._on_change(obj, gone)
