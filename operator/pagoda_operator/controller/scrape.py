"""Asks pods how they are: /ready while they are on their way, in or out, /metrics when they serve.

What pods answer changes all the time, and a status is no place for that: reports of a service are published to the
store, and the service is looked at, only when something is worth a write (`news.py`). Scalers hear every number.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pagoda_engine.contract import ENGINE_PORT, ENGINE_PORT_NAME
from pagoda_operator.api.names import Object
from pagoda_operator.controller.answers import NO_ANSWER, Fetch, numbers, progress
from pagoda_operator.controller.http_get import get
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.news import Reports, worth_telling
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.store import Store
from pagoda_operator.core.facts import PodReport
from pagoda_operator.core.pods import is_leaving, serves
from pagoda_operator.scaling.load import Load

logger = logging.getLogger(__name__)

TICK: Final = 1.0
LOADING_PERIOD: Final = 2.0
SERVING_PERIOD: Final = 5.0
SCALED_PERIOD: Final = 2.0
"""Seconds between two questions to a pod: on its way, serving, serving for a service that a scaler scales."""
LOADING_RATE: Final = 20.0
SERVING_RATE: Final = 10.0
SCALED_RATE: Final = 100.0
"""Questions in a second at most, to all pods of such a kind: beyond, the period grows."""
STANDS: Final = 10.0
"""Seconds that a number stands beyond two missed questions."""


@dataclass(slots=True)
class _Asked:
    """A pod, by its uid: what it last answered, and when it is to be asked next."""

    report: PodReport | None = None
    heard_at: float = 0.0
    next_at: float = 0.0


@dataclass(slots=True)
class _Told:
    reports: Reports = field(default_factory=dict)
    at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod that can be asked."""

    uid: str
    name: str
    url: str
    serves: bool


@dataclass(slots=True)
class _Group:
    """The pods of a service that can be asked, as of a state of the store, and when the first of them is due."""

    changes: int
    pods: list[_Pod]
    serving: int
    scaled: bool
    due_at: float = 0.0


class Scraper:
    """`changed` is called with each service whose published reports changed; `loads` hears every number.

    `fetch` is for tests; default is HTTP.
    """

    def __init__(
        self,
        store: Store,
        changed: Callable[[ServiceKey], None],
        loads: ServiceLoads,
        *,
        concurrency: int = 32,
        fetch: Fetch | None = None,
    ) -> None:
        self.asked_all = asyncio.Event()
        """Set once every pod that there was at the start has been asked."""
        self._store = store
        self._changed = changed
        self._loads = loads
        self._slots = asyncio.Semaphore(concurrency)
        self._fetch = fetch
        self._asked: dict[str, _Asked] = {}
        self._told: dict[ServiceKey, _Told] = {}
        self._untold: set[ServiceKey] = set()  # whose reports may be others than those that were told
        self._groups: dict[ServiceKey, _Group] = {}

    async def run(self) -> None:
        """Scrape until cancelled."""
        self._fetch = self._fetch or get
        async with asyncio.TaskGroup() as asking:
            self._loads.begin({pod.uid for key in self._store.services() for pod in self._reachable(key) if pod.serves})
            # A pod that does not answer holds nobody up but those who wait for the first round.
            if first := self._look(asking):
                await asyncio.wait(first)
            self.asked_all.set()
            while True:
                await asyncio.sleep(TICK)
                self._look(asking)

    async def ask(self, key: ServiceKey) -> Reports:
        """What the pods of a service that serve answer now, by name; before `run` and of silent ones, what is known."""
        pods = [pod for pod in self._pods(key) if pod.serves]
        if self._fetch is not None:
            await asyncio.gather(*(self._ask(key, pod, self._fetch, SERVING_PERIOD) for pod in pods))
        return self._known(pods)

    def _look(self, asking: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Ask every pod that is due, each in a task of its own; tell of those that are gone."""
        now, fetch = asyncio.get_running_loop().time(), self._fetch
        if self._regroup():
            alive = {pod.uid for group in self._groups.values() for pod in group.pods}
            self._asked = {uid: asked for uid, asked in self._asked.items() if uid in alive}
            self._loads.keep(alive)
        loading, serving, scaled = self._periods()
        started = []
        for key, group in self._groups.items():
            if fetch is None or group.due_at > now:
                continue
            for pod in group.pods:
                if self._state(pod).next_at <= now:
                    period = (scaled if group.scaled else serving) if pod.serves else loading
                    started.append(asking.create_task(self._ask(key, pod, fetch, period)))
                    self._state(pod).next_at = math.inf  # it is being asked
            group.due_at = min((self._state(pod).next_at for pod in group.pods), default=math.inf)
        for key in tuple(self._untold):
            self._publish(key)
        return started

    def _regroup(self) -> bool:
        """Look at the services that changed since the last tick, and at no other; returns whether there were any."""
        services = self._store.services()
        gone = self._groups.keys() - services
        for key in gone:
            del self._groups[key]
            self._told.pop(key, None)
            self._untold.discard(key)
        changed = [
            key
            for key in services
            if (group := self._groups.get(key)) is None or group.changes != self._store.changes(key)
        ]
        for key in changed:
            pods = self._reachable(key)
            scaled = _is_scaled(self._store.service(key))
            self._groups[key] = _Group(self._store.changes(key), pods, sum(pod.serves for pod in pods), scaled)
            self._untold.add(key)
        return bool(gone or changed)

    def _periods(self) -> tuple[float, float, float]:
        """Seconds between two questions to a pod that is on its way, that serves, and that serves where a scaler asks:
        those want to know sooner than people."""
        groups = self._groups.values()
        loading = sum(len(group.pods) - group.serving for group in groups)
        scaled = sum(group.serving for group in groups if group.scaled)
        serving = sum(group.serving for group in groups) - scaled
        return (
            max(LOADING_PERIOD, loading / LOADING_RATE),
            max(SERVING_PERIOD, serving / SERVING_RATE),
            max(SCALED_PERIOD, scaled / SCALED_RATE),
        )

    def _pods(self, key: ServiceKey) -> list[_Pod]:
        group = self._groups.get(key)
        current = group is not None and group.changes == self._store.changes(key)
        return group.pods if group is not None and current else self._reachable(key)

    def _reachable(self, key: ServiceKey) -> list[_Pod]:
        return [
            _Pod(pod["metadata"]["uid"], pod["metadata"]["name"], _url(pod), serves(pod) and not is_leaving(pod))
            for pod in self._store.pods(key)
            if pod.get("status", {}).get("podIP") and pod["status"].get("phase") in ("Pending", "Running")
        ]

    def _state(self, pod: _Pod) -> _Asked:
        return self._asked.setdefault(pod.uid, _Asked())

    def _known(self, pods: Iterable[_Pod]) -> Reports:
        return {pod.name: report for pod in pods if (report := self._state(pod).report) is not None}

    async def _ask(self, key: ServiceKey, pod: _Pod, fetch: Fetch, period: float) -> None:
        state, clock = self._state(pod), asyncio.get_running_loop()
        state.next_at = math.inf  # it is being asked
        begun, report = clock.time(), None
        try:
            async with self._slots:
                report = await (numbers if pod.serves else progress)(pod.url, fetch)
        except NO_ANSWER as error:
            logger.debug("no report of pod %s: %s", pod.name, error)
        except Exception:
            # What one pod answers must not stop the operator; it is told in full.
            logger.exception("no report of pod %s", pod.name, extra={"service": str(key)})
        finally:
            state.next_at = begun + period
            if (group := self._groups.get(key)) is not None:
                group.due_at = min(group.due_at, state.next_at)
        stands = 2 * period + STANDS
        if report is not None:
            state.report, state.heard_at = report, begun
        elif pod.serves and begun - state.heard_at > stands:
            state.report = None  # until then the last answer stands
        if pod.serves:
            self._tell(key, pod.uid, report, stands=stands)
        self._publish(key)

    def _tell(self, key: ServiceKey, uid: str, report: PodReport | None, *, stands: float) -> None:
        if report is None or report.waiting is None or report.running is None:
            self._loads.silent(uid)
        else:
            self._loads.heard(key, uid, Load(report.waiting, report.running), stands=stands)

    def _publish(self, key: ServiceKey) -> None:
        if self._store.service(key) is None:
            return  # deleted while its pod was asked
        now = asyncio.get_running_loop().time()
        known = self._known(self._pods(key))
        told = self._told.setdefault(key, _Told())
        if worth_telling(told.reports, known, now - told.at):
            self._told[key] = _Told(known, now)
            self._untold.discard(key)
            self._store.report(key, known)
            self._changed(key)
        elif known == told.reports:
            self._untold.discard(key)
        else:
            self._untold.add(key)  # until its time has come


def _is_scaled(service: Object | None) -> bool:
    return service is not None and bool(service["spec"].get("autoscaling"))


def _url(pod: Object) -> str:
    address = pod["status"]["podIP"]
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    named = [port["containerPort"] for port in ports if port.get("name") == ENGINE_PORT_NAME]
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{named[0] if named else ENGINE_PORT}"
