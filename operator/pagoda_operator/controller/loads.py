"""The load of each service, as its pods last told it, and as a gateway tells of requests that it holds.

Everything is kept in this process, in every instance of the operator, so that whichever is asked can answer; a load
moves all the time, and nothing of it is written to the cluster here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Final

from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.store import Store
from pagoda_operator.core.coming import pressing
from pagoda_operator.core.pods import is_leaving, is_loading, serves
from pagoda_operator.scaling.load import HOLD_SECONDS, Load

LOOK_SECONDS: Final = 1.0
"""Who waits for another load looks at least so often: pods come and go, and words expire, without a call of ours."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A service as it was when the store had so many `changes` of it: scalers ask every second, and it is read once.

    serving, loading    uids of pods that serve and stay; the number of those on their way
    """

    changes: int
    exists: bool = False
    scaled: bool = False
    target: int = 1
    replicas: int = 1
    slots: int = 0
    serving: tuple[str, ...] = ()
    loading: int = 0


@dataclass(frozen=True, slots=True)
class _Told:
    """Numbers of one pod, and until when they stand."""

    load: Load
    until: float


class ServiceLoads:
    """Implements `scaling.load.Loads` over the store and what pods answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: dict[str, _Told | None] = {}  # by the pod's uid; None: asked, and never answered
        self._unasked: set[str] | None = None  # of those that served when this process began; None: before that
        self._held: dict[ServiceKey, tuple[int, float]] = {}
        self._news: dict[ServiceKey, asyncio.Event] = {}
        self._seen: dict[ServiceKey, _Seen] = {}

    # --- told by the scraper -----------------------------------------------------------------------------------------

    def begin(self, uids: Set[str]) -> None:
        """The cluster has been read, and these pods serve: until each was asked, nobody knows its service's load.

        A pod that comes later has done nothing yet, and counts as idle until it tells otherwise.
        """
        self._unasked = set(uids)

    def heard(self, key: ServiceKey, uid: str, load: Load, *, stands: float) -> None:
        """A pod told its load, which stands for so many seconds."""
        self._told[uid] = _Told(load, _now() + stands)
        self._was_asked(uid)
        self._wake(key)

    def silent(self, uid: str) -> None:
        """A pod did not answer, or not with numbers; those it told before stand while they are young."""
        self._told.setdefault(uid, None)
        self._was_asked(uid)

    def keep(self, uids: Set[str]) -> None:
        """Forget all other pods, and services that are gone."""
        self._told = {uid: told for uid, told in self._told.items() if uid in uids}
        services = self._store.services()
        self._held = {key: held for key, held in self._held.items() if key in services}
        self._seen = {key: seen for key, seen in self._seen.items() if key in services}

    # --- `Loads` -----------------------------------------------------------------------------------------------------

    def of(self, namespace: str, name: str) -> Load | None:
        key = ServiceKey(namespace, name)
        seen = self._see(key)
        if self._unasked is None or not seen.exists or not self._unasked.isdisjoint(seen.serving):
            return None
        asked = [self._told[uid] for uid in seen.serving if uid in self._told]
        known = [told.load for told in asked if told is not None and told.until > _now()]
        if asked and not known:
            return None

        def whole(known_sum: int) -> int:
            # Replicas that fell silent are taken to be as busy as the others: neither direction follows from silence.
            return -(-known_sum * len(asked) // len(known)) if known else 0

        held, until = self._held.get(key, (0, 0.0))
        waiting = whole(sum(load.waiting for load in known)) + (held if until > _now() else 0)
        return Load(waiting, whole(sum(load.running for load in known)))

    def pressing(self, namespace: str, name: str) -> Load | None:
        load, seen = self.of(namespace, name), self._see(ServiceKey(namespace, name))
        if load is None:
            return None
        waiting = pressing(
            load.waiting, target=seen.target, replicas=seen.replicas, loading=seen.loading, slots=seen.slots
        )
        return Load(waiting, load.running)

    def known(self) -> Iterator[tuple[str, Load]]:
        """Each service that scales by itself and whose load is known, as `NAMESPACE/NAME`."""
        for key in sorted(key for key in self._store.services() if self._see(key).scaled):
            if (load := self.of(*key)) is not None:
                yield str(key), load

    async def other_than(self, namespace: str, name: str, seen: Load | None) -> Load | None:
        key = ServiceKey(namespace, name)
        while (load := self.of(namespace, name)) == seen:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.setdefault(key, asyncio.Event()).wait(), LOOK_SECONDS)
        return load

    def activate(self, namespace: str, name: str, requests: int) -> bool:
        key = ServiceKey(namespace, name)
        if not self._see(key).exists:
            return False
        self._held[key] = (requests, _now() + HOLD_SECONDS)
        self._wake(key)
        return True

    def _was_asked(self, uid: str) -> None:
        if self._unasked is not None:
            self._unasked.discard(uid)

    def _see(self, key: ServiceKey) -> _Seen:
        changes, seen = self._store.changes(key), self._seen.get(key)
        if seen is not None and seen.changes == changes:
            return seen
        service, pods = self._store.service(key), self._store.pods(key)
        if service is None:
            return _Seen(changes)
        spec = service["spec"]
        self._seen[key] = seen = _Seen(
            changes,
            exists=True,
            scaled=bool(spec.get("autoscaling")),
            target=(spec.get("autoscaling") or {}).get("waitingRequests", 1),
            replicas=spec.get("replicas", 1),
            slots=service.get("status", {}).get("plan", {}).get("maxNumSeqs", 0),
            serving=tuple(pod["metadata"]["uid"] for pod in pods if serves(pod) and not is_leaving(pod)),
            loading=sum(map(is_loading, pods)),
        )
        return seen

    def _wake(self, key: ServiceKey) -> None:
        if (news := self._news.pop(key, None)) is not None:
            news.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
