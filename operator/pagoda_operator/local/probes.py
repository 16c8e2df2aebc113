"""Probes of a container: when to ask, and what a row of answers means, as the kubelet's pkg/kubelet/prober has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import aiohttp

from pagoda_operator.api.names import Object


@dataclass(frozen=True, slots=True)
class Probe:
    """An httpGet probe with Kubernetes' defaults; times in seconds."""

    url: str
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace: float | None = None

    @classmethod
    def of(cls, probe: Object | None, container: Object, *, pod_ip: str) -> Probe | None:
        """The probe of a pod spec, None for none. Raises ValueError for another action than httpGet."""
        if not probe:
            return None
        if "httpGet" not in probe:
            raise ValueError(f"container {container['name']!r} has a probe that is no httpGet; here only httpGet works")
        get = probe["httpGet"]
        host, port = get.get("host", pod_ip), _port(get["port"], container)
        return cls(
            url=f"{get.get('scheme', 'HTTP').lower()}://{host}:{port}{get.get('path', '/')}",
            initial_delay=probe.get("initialDelaySeconds", 0),
            period=probe.get("periodSeconds", 10),
            timeout=probe.get("timeoutSeconds", 1),
            success_threshold=probe.get("successThreshold", 1),
            failure_threshold=probe.get("failureThreshold", 3),
            termination_grace=probe.get("terminationGracePeriodSeconds"),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a row of equal answers says: nothing yet (`passing` is None), or that the probe passes or fails."""

    probe: Probe
    passing: bool | None = None
    row: tuple[bool, int] = (True, 0)
    """The last answer, and how often it came in a row."""

    def after(self, answer: bool) -> Verdict:
        count = self.row[1] + 1 if self.row[0] == answer else 1
        threshold = self.probe.success_threshold if answer else self.probe.failure_threshold
        return Verdict(self.probe, answer if count >= threshold else self.passing, (answer, count))


async def verdicts(probe: Probe, session: aiohttp.ClientSession) -> AsyncGenerator[bool, None]:
    """Ask for ever, one period apart; after each answer yield the verdict, once there is one."""
    await asyncio.sleep(probe.initial_delay)
    verdict = Verdict(probe)
    clock = asyncio.get_running_loop().time
    while True:
        asked = clock()
        verdict = verdict.after(await answers(probe, session))
        if verdict.passing is not None:
            yield verdict.passing
        await asyncio.sleep(max(0.0, asked + probe.period - clock()))


async def answers(probe: Probe, session: aiohttp.ClientSession) -> bool:
    """One request: whether it was answered with 200 to 399 in time."""
    try:
        timeout = aiohttp.ClientTimeout(total=probe.timeout)
        async with session.get(probe.url, timeout=timeout, headers={"Connection": "close"}) as response:
            return 200 <= response.status < 400
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def probe_session() -> aiohttp.ClientSession:
    """A client as the kubelet's: no kept connections, no cookies, no proxy."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, ssl=False), cookie_jar=aiohttp.DummyCookieJar()
    )


def _port(port: int | str, container: Object) -> int:
    if isinstance(port, int):
        return port
    for declared in container.get("ports", ()):
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise ValueError(f"a probe of container {container['name']!r} names port {port!r}, which it does not declare")
