"""The services of a run: applied at once, watched until they are Ready, edited; and what is known of the way there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from e2e.api import Api, Object
from e2e.informer import Informer, Key

GROUP: Final = "/apis/pagoda.dev/v1alpha1"
NAMESPACES: Final = 10
REPLICAS: Final = 5
AT_ONCE: Final = 32
"""Services that the user's client applies at a time."""
CHECK_SECONDS: Final = 1.0
MODEL: Final = "hf://tests/tiny"


def service(name: str, number: int) -> Object:
    """A service of REPLICAS pods with one GPU each; its volume may be on any node."""
    return {
        "apiVersion": "pagoda.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": f"{name}-{number}", "namespace": f"team-{number % NAMESPACES}"},
        "spec": {
            "model": {"uri": MODEL},
            "replicas": REPLICAS,
            "accelerator": "gpu",
            "cache": {"accessMode": "ReadWriteMany", "size": "1Gi"},
        },
    }


def path_of(namespace: str, name: str = "") -> str:
    return f"{GROUP}/namespaces/{namespace}/inferenceservices" + (f"/{name}" if name else "")


class Watched:
    """When each service was first Ready, by time.time(); `run` until cancelled."""

    def __init__(self, api: Api) -> None:
        self.ready_at: dict[Key, float] = {}
        self._informer = Informer(api, f"{GROUP}/inferenceservices", self._changed)
        self._wake = asyncio.Event()
        self._news = asyncio.Event()

    async def run(self) -> None:
        await self._informer.run()

    async def all_ready(self, keys: Iterable[Key], seconds: float, check: Callable[[], None]) -> None:
        """Returns once each of them has been Ready. Raises TimeoutError, and what `check` raises now and then."""
        waiting = set(keys)
        async with asyncio.timeout(seconds):
            while waiting := {key for key in waiting if key not in self.ready_at}:
                check()
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), CHECK_SECONDS)

    async def settled(self, quiet: float, seconds: float) -> None:
        """Returns once no service has changed for so long, since details are told some time after they changed.

        Raises TimeoutError.
        """
        async with asyncio.timeout(seconds):
            while True:
                self._news.clear()
                try:
                    await asyncio.wait_for(self._news.wait(), quiet)
                except TimeoutError:
                    return

    def _changed(self, obj: Object, gone: bool) -> None:
        self._news.set()
        conditions = obj.get("status", {}).get("conditions", ())
        key = obj["metadata"]["namespace"], obj["metadata"]["name"]
        if (
            not gone
            and key not in self.ready_at
            and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        ):
            self.ready_at[key] = time.time()
            self._wake.set()


async def make_namespaces(api: Api) -> None:
    for number in range(NAMESPACES):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}}
        await api.create("/api/v1/namespaces", namespace)


async def apply(api: Api, services: Sequence[Object]) -> list[Key]:
    """All at once, AT_ONCE at a time; returns their keys."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(obj: Object) -> Key:
        async with slots:
            await api.create(path_of(obj["metadata"]["namespace"]), obj)
        return obj["metadata"]["namespace"], obj["metadata"]["name"]

    return list(await asyncio.gather(*map(one, services)))


class Editor:
    """Edits services in turn: each edit asks for a larger cache, which is one write to one child."""

    def __init__(self, api: Api, keys: Sequence[Key]) -> None:
        self.edits: list[tuple[Key, float]] = []
        """Which service was edited, and when that was answered, by time.time()."""
        self._api = api
        self._keys = keys
        self._sizes = dict.fromkeys(keys, 1)

    async def edit(self, count: int, pause: float) -> None:
        """`count` edits, `pause` seconds apart."""
        for _ in range(count):
            key = self._keys[len(self.edits) % len(self._keys)]
            self._sizes[key] += 1
            await self._api.patch(path_of(*key), {"spec": {"cache": {"size": f"{self._sizes[key]}Gi"}}})
            self.edits.append((key, time.time()))
            await asyncio.sleep(pause)

    async def edit_until(self, ended: asyncio.Event, pause: float) -> None:
        """The same until told to end."""
        while not ended.is_set():
            await self.edit(1, pause)
