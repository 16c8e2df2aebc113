"""external.metrics.k8s.io/v1beta1, served by the operator itself: the load of a service as two metrics.

What a HorizontalPodAutoscaler's controller asks (k8s.io/metrics/pkg/client/external_metrics):

    GET /apis/external.metrics.k8s.io/v1beta1/namespaces/NAMESPACE/METRIC?labelSelector=pagoda.dev/service=NAME

and what the API server asks before it passes that on: the group's discovery. It is the only client; see `front_proxy`.
Answers are JSON, which every client of Kubernetes accepts. Types: k8s.io/metrics/pkg/apis/external_metrics/v1beta1.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from pagoda_engine.contract import Metric
from pagoda_operator.api.names import SERVICE_LABEL, Object
from pagoda_operator.core.api_service import GROUP, VERSION
from pagoda_operator.scaling.front_proxy import FrontProxy
from pagoda_operator.scaling.load import Load, Loads
from pagoda_operator.scaling.tls import RotatingTls

GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
ROOT: Final = f"/apis/{GROUP_VERSION}"
KIND: Final = "ExternalMetricValueList"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METRICS: Final[dict[str, Callable[[Load], int]]] = {
    Metric.WAITING: lambda load: load.waiting,
    Metric.RUNNING: lambda load: load.running,
}
_REASONS: Final = {400: "BadRequest", 401: "Unauthorized", 404: "NotFound"}
_SELECTOR: Final = re.compile(
    rf"{re.escape(SERVICE_LABEL)}(?:\s*==?\s*|\s+in\s+\(\s*)(?P<service>[a-z0-9][-a-z0-9]*)(?:\s*\))?"
)


class ExternalMetrics:
    """Answers requests; `front_proxy` gives whom to take them from, None where that is not known yet."""

    def __init__(
        self,
        loads: Loads,
        front_proxy: Callable[[], FrontProxy | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._loads = loads
        self._front_proxy = front_proxy
        self._now = now

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._only_the_front_proxy])
        app.add_routes(
            [
                web.get(f"/apis/{GROUP}", self._group),
                web.get(ROOT, self._resources),
                web.get(f"{ROOT}/namespaces/{{namespace}}/{{metric}}", self._values),
            ]
        )
        return app

    @web.middleware
    async def _only_the_front_proxy(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        proxy = self._front_proxy()
        if proxy is None or not proxy.is_shown_by(certificate):
            return _refusal(401, "only the API server's front proxy is answered; ask through the API server")
        try:
            return await handler(request)
        except web.HTTPException as refused:
            return _refusal(refused.status, f"{request.method} {request.path}: {refused.reason}")

    async def _group(self, _: web.Request) -> web.Response:
        version = {"groupVersion": GROUP_VERSION, "version": VERSION}
        group = {"name": GROUP, "versions": [version], "preferredVersion": version}
        return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **group})

    async def _resources(self, _: web.Request) -> web.Response:
        return web.json_response(resources())

    async def _values(self, request: web.Request) -> web.Response:
        namespace, metric = request.match_info["namespace"], request.match_info["metric"]
        if metric not in METRICS:
            return _refusal(404, f"there is no metric {metric!r} here, but {' and '.join(METRICS)}")
        selector = request.query.get("labelSelector", "")
        if (found := _SELECTOR.fullmatch(selector.strip())) is None:
            wanted = f"labelSelector={SERVICE_LABEL}=NAME"
            return _refusal(400, f"labelSelector is {selector!r}; it must name one InferenceService: {wanted}")
        service = found["service"]
        if (load := self._loads.pressing(namespace, service)) is None:
            return _refusal(
                404,
                f"the load of InferenceService {namespace}/{service} is not known: there is no such service, or none "
                "of its replicas answers on /metrics",
            )
        return web.json_response(values(metric, service, METRICS[metric](load), self._now()))


def resources() -> Object:
    """The discovery of the group's version. Metrics can be read and nothing else: no `list`, since tools that list all
    there is would ask for metrics without a service."""
    metrics = [
        {"name": str(metric), "singularName": "", "namespaced": True, "kind": KIND, "verbs": ["get"]}
        for metric in METRICS
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": metrics}


def values(metric: str, service: str, value: int, now: datetime) -> Object:
    """One value: the sum over a service's replicas, which the HPA divides by their number."""
    item = {
        "metricName": metric,
        "metricLabels": {SERVICE_LABEL: service},
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": str(value),
    }
    return {"kind": KIND, "apiVersion": GROUP_VERSION, "metadata": {}, "items": [item]}


@asynccontextmanager
async def serve_external_metrics(
    host: str, port: int, loads: Loads, tls: RotatingTls, front_proxy: Callable[[], FrontProxy | None]
) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port, which is any free one for 0. Raises OSError."""
    runner = web.AppRunner(ExternalMetrics(loads, front_proxy).application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls.context)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _refusal(code: int, message: str) -> web.Response:
    """A `Status`, whose message ends in the HPA's condition."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return web.json_response({**status, "reason": _REASONS.get(code, ""), "code": code}, status=code)
