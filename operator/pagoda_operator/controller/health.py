"""The operator's own HTTP: /healthz, /readyz, /metrics, and what others serve beside them.

/healthz answers from the event loop that everything runs in, so a dead loop is a failed probe, as is a reconcile that
does not end; what else can go wrong (a silent watch, a lost lease) ends the process by itself. An API server that does
not answer is no reason to start the operator again, and fails neither probe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from pagoda_operator.controller.metrics import OperatorMetrics


@dataclass(frozen=True, slots=True)
class Checks:
    """What is asked of the controller: whether the cluster has been read once; why it must be started again, if so."""

    ready: Callable[[], bool]
    stuck: Callable[[], str | None]


@asynccontextmanager
async def serve_health(
    host: str, port: int, checks: Checks, metrics: OperatorMetrics, *more: web.RouteDef
) -> AsyncIterator[int]:
    """Serve these and `more` while the context is open; gives the port, which is any free one for 0. Raises OSError."""

    async def healthz(_: web.Request) -> web.Response:
        problem = checks.stuck()
        return web.Response(status=503, text=problem) if problem else web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        if checks.ready():
            return web.Response(text="ok")
        return web.Response(status=503, text="the cluster has not been read yet")

    async def metricsz(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=metrics.text(), headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metricsz), *more])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
