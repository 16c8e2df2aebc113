"""Asks pods how they are: /ready while they are on their way, /metrics when they serve.

What pods answer changes all the time, and a status is no place for that: reports of a service are published to the
store, and the service is looked at, only when something is worth a write (`worth_telling`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from pagoda_engine.contract import ENGINE_PORT, ENGINE_PORT_NAME, METRICS_PATH, READY_PATH, Metric, Progress, Stage
from pagoda_operator.api.names import Object
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.store import Store
from pagoda_operator.core.facts import PodReport

logger = logging.getLogger(__name__)

TICK: Final = 1.0
LOADING_PERIOD: Final = 2.0
SERVING_PERIOD: Final = 5.0
SERVING_RATE: Final = 50.0
"""Seconds; and requests in a second, at most, to pods that serve: beyond 250 of them the period grows."""

PERCENT_PAUSE: Final = 2.0
EDGE_PAUSE: Final = 5.0
QUEUE_PAUSE: Final = 15.0
"""Seconds between two publications for the sake of a percentage, of a queue that fills or empties, of other numbers."""

ANSWER_LIMIT: Final = 4 << 20
DOCUMENT_LIMIT: Final = 16 << 10
"""Bytes that are read of an answer; bytes that a progress document may have."""

Fetch = Callable[[str], Awaitable[tuple[int, bytes]]]
"""GET a URL: status and body. Raises OSError, TimeoutError or aiohttp.ClientError where there is no answer."""

Reports = Mapping[str, PodReport]


def worth_telling(told: Reports, known: Reports, elapsed: float) -> bool:
    """Whether what is known of a service's pods differs enough from what was told `elapsed` seconds ago."""
    if _phases(told) != _phases(known):
        return True
    if elapsed >= PERCENT_PAUSE and any(_moved(told[pod].progress, known[pod].progress) for pod in known):
        return True
    old, new = _load(told), _load(known)
    if elapsed >= EDGE_PAUSE and [bool(number) for number in old] != [bool(number) for number in new]:
        return True
    return elapsed >= QUEUE_PAUSE and old != new


def _phases(reports: Reports) -> dict[str, tuple[Stage | None, bool]]:
    """What each pod is doing, and whether its queue is known: an engine says that it is ready before it is asked."""
    return {
        pod: (report.progress.stage if report.progress else None, report.waiting is not None)
        for pod, report in reports.items()
    }


def _moved(old: Progress | None, new: Progress | None) -> bool:
    if old is None or new is None or old.percent is None or new.percent is None:
        return old != new
    return abs(new.percent - old.percent) >= 1 or old.message != new.message


def _load(reports: Reports) -> tuple[int, int]:
    waiting = sum(report.waiting or 0 for report in reports.values())
    return waiting, sum(report.running or 0 for report in reports.values())


def gauge(text: str, name: str) -> int | None:
    """The sum of a gauge over its labels in Prometheus' text format, or None where it has no finite value.

    Raises ValueError on a value that is no number.
    """
    values = [float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})?[ \t]+(\S+)", text, re.MULTILINE)]
    finite = [value for value in values if math.isfinite(value)]
    return round(sum(finite)) if finite else None


def progress(body: bytes) -> Progress:
    """The document of /ready, which any image may have answered. Raises ValueError."""
    if len(body) > DOCUMENT_LIMIT:
        raise ValueError(f"{len(body)} bytes are no progress document")
    return Progress.from_json(body)


@dataclass(slots=True)
class _Asked:
    """A pod, by its uid, and when it is to be asked next."""

    report: PodReport | None = None
    next_at: float = 0.0


@dataclass(slots=True)
class _Told:
    reports: Reports = field(default_factory=dict)
    at: float = float("-inf")


class Scraper:
    """`changed` is called with each service whose published reports changed. `fetch` is for tests; default is HTTP."""

    def __init__(
        self, store: Store, changed: Callable[[ServiceKey], None], *, concurrency: int = 32, fetch: Fetch | None = None
    ) -> None:
        self.asked_all = asyncio.Event()
        """Set once every pod that there was at the start has been asked."""
        self._store = store
        self._changed = changed
        self._slots = asyncio.Semaphore(concurrency)
        self._fetch = fetch
        self._asked: dict[str, _Asked] = {}
        self._told: dict[ServiceKey, _Told] = {}

    async def run(self) -> None:
        """Scrape until cancelled."""
        if self._fetch is not None:
            return await self._rounds(self._fetch)
        timeout = aiohttp.ClientTimeout(total=3)
        # Pods are reached as they are, never through a proxy that the environment names.
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            return await self._rounds(_http(session))

    async def _rounds(self, fetch: Fetch) -> None:
        while True:
            await self.round(fetch)
            self.asked_all.set()
            await asyncio.sleep(TICK)

    async def round(self, fetch: Fetch) -> None:
        """Ask every pod that is due, then publish what is worth it."""
        now = asyncio.get_running_loop().time()
        pods = {key: self._reachable(key) for key in self._store.services()}
        serving = sum(_is_ready(pod) for group in pods.values() for pod in group)
        period = max(SERVING_PERIOD, serving / SERVING_RATE)
        due = [pod for group in pods.values() for pod in group if self._state(pod).next_at <= now]
        async with asyncio.TaskGroup() as asking:
            for pod in due:
                asking.create_task(self._ask(pod, fetch, now + (period if _is_ready(pod) else LOADING_PERIOD)))
        for key, group in pods.items():
            self._publish(key, group)
        alive = {pod["metadata"]["uid"] for group in pods.values() for pod in group}
        self._asked = {uid: asked for uid, asked in self._asked.items() if uid in alive}
        self._told = {key: told for key, told in self._told.items() if key in pods}

    def _reachable(self, key: ServiceKey) -> list[Object]:
        return [
            pod
            for pod in self._store.pods(key)
            if pod.get("status", {}).get("podIP")
            and pod["status"].get("phase") in ("Pending", "Running")
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def _state(self, pod: Object) -> _Asked:
        return self._asked.setdefault(pod["metadata"]["uid"], _Asked())

    async def _ask(self, pod: Object, fetch: Fetch, next_at: float) -> None:
        state = self._state(pod)
        state.next_at = next_at
        url = _url(pod)
        async with self._slots:
            try:
                if _is_ready(pod):
                    status, body = await fetch(url + METRICS_PATH)
                    if status == 200:
                        state.report = _serving(body)
                else:
                    _, body = await fetch(url + READY_PATH)
                    state.report = PodReport(progress=progress(body))
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
                # Between two containers, or another engine's image: the last answer stands.
                logger.debug("no report of pod %s: %s", pod["metadata"]["name"], error)

    def _publish(self, key: ServiceKey, pods: list[Object]) -> None:
        now = asyncio.get_running_loop().time()
        known = {pod["metadata"]["name"]: report for pod in pods if (report := self._state(pod).report) is not None}
        told = self._told.setdefault(key, _Told())
        if worth_telling(told.reports, known, now - told.at):
            self._told[key] = _Told(known, now)
            self._store.report(key, known)
            self._changed(key)


def _serving(body: bytes) -> PodReport:
    text = body.decode(errors="replace")
    return PodReport(
        progress=Progress(Stage.READY), waiting=gauge(text, Metric.WAITING), running=gauge(text, Metric.RUNNING)
    )


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _url(pod: Object) -> str:
    address = pod["status"]["podIP"]
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    named = [port["containerPort"] for port in ports if port.get("name") == ENGINE_PORT_NAME]
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{named[0] if named else ENGINE_PORT}"


def _http(session: aiohttp.ClientSession) -> Fetch:
    async def fetch(url: str) -> tuple[int, bytes]:
        async with session.get(url) as response:
            body = await response.content.read(ANSWER_LIMIT)
            while not response.content.at_eof() and len(body) < ANSWER_LIMIT:
                body += await response.content.read(ANSWER_LIMIT - len(body))
            return response.status, body

    return fetch
