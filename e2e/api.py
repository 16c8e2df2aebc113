"""The harness' own client of the API server, for its nodes and its tests.

Small and apart from the operator's client on purpose: what proves the product must not share its mistakes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

Object = dict[str, Any]

LIST_LIMIT_SECONDS = 30.0
AWAY_SECONDS = 20.0
"""The API server may be restarted, and nodes and users outlive that: a call is tried again for so long."""
RETRY_SECONDS = 0.2


class ApiError(Exception):
    """The API server's refusal: `code` is HTTP's, `reason` Kubernetes' (NotFound, Conflict, Expired, …)."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class Api:
    """One API server and one bearer token. Use as an async context manager."""

    def __init__(self, url: str, token: str, ca: Path) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=aiohttp.ClientTimeout(total=LIST_LIMIT_SECONDS)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **params: str) -> Object:
        return await self._call("GET", path, params=params)

    async def create(self, path: str, obj: Object) -> Object:
        return await self._call("POST", path, body=obj)

    async def put(self, path: str, obj: Object) -> Object:
        return await self._call("PUT", path, body=obj)

    async def patch(self, path: str, obj: Object, kind: str = "application/merge-patch+json") -> Object:
        return await self._call("PATCH", path, body=obj, content_type=kind)

    async def delete(self, path: str, *, uid: str | None = None, grace_seconds: int | None = None) -> None:
        """Delete the object, if it still is the one of that uid. Raises ApiError 404, 409."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._call("DELETE", path, body=options)

    async def watch(self, path: str, *, resource_version: str, **params: str) -> AsyncIterator[tuple[str, Object]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK; object) until the server ends the stream. Raises ApiError."""
        query = {**params, "watch": "true", "resourceVersion": resource_version, "allowWatchBookmarks": "true"}
        async with self._open().get(
            self._url + path, params=query, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=1 << 22
        ) as answer:
            await _raise_refusal(answer)
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                yield event["type"], event["object"]

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AWAY_SECONDS
        while True:
            try:
                async with self._open().request(
                    method, self._url + path, data=data, params=params, headers=headers
                ) as answer:
                    await _raise_refusal(answer)
                    return dict(await answer.json())
            except (aiohttp.ClientConnectionError, ApiError) as error:
                away = not isinstance(error, ApiError) or error.code in (429, 500, 503, 504)
                if not away or loop.time() > deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is closed; use it as an async context manager")
        return self._session


async def _raise_refusal(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    text = await answer.text()
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text}
    raise ApiError(answer.status, status.get("reason", ""), status.get("message", text))
