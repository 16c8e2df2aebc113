"""The baseline: a client that knows every child and every status in advance and does nothing but write them.

    bare.py URL CA DOCUMENTS WORKERS        with the token in TOKEN

It does what no operator can do without: one server-side apply for each child, one status when they are written, one
when the Deployment has a replica that answers. Nothing is computed, compared or kept. It ends when all is written.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from e2e.api import Api, Object
from e2e.informer import Informer, Key, key_of

APPLY: Final = "application/apply-patch+yaml"
QUERY: Final = "?fieldManager=bare&force=true"
UID: Final = "00000000-0000-0000-0000-000000000000"
"""Stands in documents for the service's own."""

Documents = dict[Key, dict[str, Any]]
"""For each service: `children` (path, object), `planned` and `ready`, which are its two statuses."""


class Bare:
    """`run` returns when every service of the documents has its children and its second status."""

    def __init__(self, api: Api, documents: Documents) -> None:
        self._api = api
        self._documents = documents
        self._uids: dict[Key, str] = {}
        self._answering: set[Key] = set()
        self._queue: asyncio.Queue[tuple[str, Key]] = asyncio.Queue()
        self._left = set(documents)

    async def run(self, workers: int) -> None:
        services = Informer(self._api, "/apis/pagoda.dev/v1alpha1/inferenceservices", self._service_changed)
        deployments = Informer(self._api, "/apis/apps/v1/deployments", self._deployment_changed)
        tasks = [asyncio.create_task(one.run()) for one in (services, deployments)]
        tasks += [asyncio.create_task(self._work()) for _ in range(workers)]
        await services.synced()
        print("ready", flush=True)
        while self._left:
            done, _ = await asyncio.wait(tasks, timeout=0.1)
            for task in done:
                task.result()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _service_changed(self, obj: Object, gone: bool) -> None:
        key = key_of(obj)
        if not gone and key in self._documents and key not in self._uids:
            self._uids[key] = obj["metadata"]["uid"]
            self._queue.put_nowait(("make", key))

    def _deployment_changed(self, obj: Object, gone: bool) -> None:
        key = key_of(obj)
        if not gone and obj.get("status", {}).get("readyReplicas") and key in self._uids and key not in self._answering:
            self._answering.add(key)
            self._queue.put_nowait(("tell", key))

    async def _work(self) -> None:
        while True:
            what, key = await self._queue.get()
            documents = self._documents[key]
            if what == "make":
                for path, child in documents["children"]:
                    await self._write(key, path, child)
                await self._write(key, *documents["planned"])
            else:
                await self._write(key, *documents["ready"])
                self._left.discard(key)

    async def _write(self, key: Key, path: str, obj: Object) -> None:
        whole = json.loads(json.dumps(obj).replace(UID, self._uids[key]))
        await self._api.patch(path + QUERY, whole, APPLY)


async def write(url: str, ca: Path, documents: Documents, workers: int) -> None:
    async with Api(url, os.environ["TOKEN"], ca) as api:
        await Bare(api, documents).run(workers)


def main(url: str, ca: str, documents: str, workers: str) -> None:
    entries = [json.loads(line) for line in Path(documents).read_text().splitlines()]
    by_key: Documents = {tuple(entry.pop("key")): entry for entry in entries}
    asyncio.run(write(url, Path(ca), by_key, int(workers)))


if __name__ == "__main__":
    main(*sys.argv[1:])
