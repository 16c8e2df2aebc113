"""What stands around the application: counting, closing connections while draining, the API key.

Plain ASGI, outside of the framework, so that an answer counts with the status that the client saw, whoever made it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagoda_engine.server.errors import unauthorized
from pagoda_engine.server.state import Serving

API_PREFIX: Final = "/v1/"
_METHODS: Final = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})


class Accounting:
    """Counts requests, for `/metrics` and for the drain, during which it also says `Connection: close`."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        serving = self._serving
        counts = scope["path"].startswith(API_PREFIX)

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if serving.draining:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        began = time.monotonic()
        if counts:
            serving.enter()
        try:
            await self._app(scope, receive, observed)
        finally:
            if counts:
                serving.leave()
            # A client's own words never become a label: they would grow the registry without bound.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            serving.metrics.http(method, route, status, time.monotonic() - began)


class ApiKey:
    """Lets no request to the API pass without the key. Probes and metrics stay open, for kubelet and Prometheus."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = _digest(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path that the router will use: one rebuilt from the Host header can be made to differ (CVE-2026-48746).
        if scope["type"] == "http" and scope["path"].startswith(API_PREFIX):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(key.strip()), self._digest):
                await unauthorized().response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _digest(key: str) -> bytes:
    """Of equal length for all keys, so that a comparison tells nothing of the right one's."""
    return hashlib.sha256(key.encode()).digest()
