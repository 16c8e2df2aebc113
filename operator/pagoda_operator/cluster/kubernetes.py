"""A cluster behind an API server: plain dicts over HTTP.

What goes over the wire is described in https://kubernetes.io/docs/reference/using-api/api-concepts/ and
.../server-side-apply/.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from pydantic_core import from_json, to_json
from yarl import URL

from pagoda_operator.api.names import FIELD_MANAGER, Object
from pagoda_operator.cluster.connection import Connection
from pagoda_operator.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Terminating,
    Unavailable,
)
from pagoda_operator.cluster.interface import Objects
from pagoda_operator.cluster.resources import Resource

JSON: Final = "application/json"
METADATA_ONLY: Final = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
APPLY: Final = "application/apply-patch+yaml"

PAGE: Final = 100
"""Objects in one page of a LIST: a page is in memory whole, as Python's objects, of which a pod takes 40 KB."""
PATIENCE: Final = 10.0
"""A call waits at most so many seconds for a Retry-After; beyond it, the work queue waits."""
ATTEMPTS: Final = 3

OnCall = Callable[[str, Resource, int, float], None]
"""Told of every answer: verb (`get`, `list`, ...), resource, HTTP status, 0 where there was none, seconds it took."""


class KubernetesCluster:
    """`Cluster` over HTTP. `connections` bounds the calls in flight, `timeout` is for one attempt, in seconds.

    There are more connections than workers, so that the Lease never waits for theirs.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        on_call: OnCall | None = None,
        timeout: float = 30.0,
        connections: int = 32,
    ) -> None:
        self.connection = connection
        self._session = connection.session(connections)
        self._on_call = on_call or _ignore
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=min(10.0, timeout))

    async def close(self) -> None:
        """Close the connections; the cluster can't be used after it."""
        await self._session.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._call("get", resource, "GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        without: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> list[Object]:
        query = _selection(labels, without, fields)
        pages = self._pages(resource, namespace, query, metadata_only, PAGE)
        try:
            return [obj async for page in pages for obj in page]
        except Expired:
            # The pages' snapshot was compacted away under us; in one piece there is nothing to expire.
            whole = self._pages(resource, namespace, query, metadata_only, 0)
            return [obj async for page in whole for obj in page]

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Objects, None]:
        query = _selection(labels)
        try:
            async for page in self._pages(resource, namespace, query, metadata_only, PAGE):
                yield page
        except Expired:
            async for page in self._pages(resource, namespace, query, metadata_only, 0):
                yield page

    async def _pages(
        self,
        resource: Resource,
        namespace: str | None,
        selection: Mapping[str, str],
        metadata_only: bool,
        limit: int,
    ) -> AsyncGenerator[Objects, None]:
        """Pages of `limit` objects, or one of all for 0. Raises Expired."""
        query = {"limit": str(limit), **selection}
        accept = METADATA_ONLY if metadata_only else JSON
        path = resource.path(namespace)
        token = ""
        while True:
            page = await self._call(
                "list", resource, "GET", path, {**query, "continue": token} if token else query, accept=accept
            )
            # Items of a list carry no type of their own, or that of the metadata envelope; an empty one may be null.
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            yield [{**item, **kind} for item in page["items"] or ()]
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def served(self, resource: Resource) -> bool:
        try:
            found = await self._call("discover", resource, "GET", resource.api_path)
        except NotFound:
            return False
        return any(entry["name"] == resource.plural for entry in found["resources"])

    # --- writing -----------------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, obj: Object) -> Object:
        path = resource.path(obj["metadata"].get("namespace"))
        return await self._call("create", resource, "POST", path, {"fieldManager": FIELD_MANAGER}, body=obj)

    async def replace(self, resource: Resource, obj: Object) -> Object:
        return await self._call("update", resource, "PUT", _path(resource, obj), {"fieldManager": FIELD_MANAGER}, obj)

    async def apply(self, resource: Resource, obj: Object, *, force: bool) -> Object:
        return await self._apply(resource, _path(resource, obj), obj, force=force)

    async def apply_status(self, resource: Resource, obj: Object) -> Object:
        return await self._apply(resource, _path(resource, obj, "status"), obj, force=True)

    async def _apply(self, resource: Resource, path: str, obj: Object, *, force: bool) -> Object:
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._call("apply", resource, "PATCH", path, query, obj, content_type=APPLY)

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        await self._call("delete", resource, "DELETE", resource.path(namespace, name), body=body)

    # --- the wire ----------------------------------------------------------------------------------------------------

    async def _call(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        accept: str = JSON,
        content_type: str = JSON,
    ) -> Object:
        """One call, tried again where the server asks for patience or our token is stale."""
        url = URL(
            f"{self.connection.configuration.host}{path}" + (f"?{urlencode(query)}" if query else ""), encoded=True
        )
        data = None if body is None else to_json(body)
        for attempt in range(ATTEMPTS):
            headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
            if authorization := await self.connection.authorization():
                headers["Authorization"] = authorization
            status, answer, retry_after = await self._exchange(method, url, headers, data, verb, resource)
            if 200 <= status < 300:
                return _object(answer)
            error = error_of(status, answer, retry_after)
            if attempt + 1 == ATTEMPTS or not isinstance(error, Unavailable):
                raise error
            if status == 401:
                await self.connection.renew()
            elif error.retry_after is not None and error.retry_after <= PATIENCE:
                await asyncio.sleep(error.retry_after)
            else:
                raise error
        raise AssertionError("the last attempt returns or raises")

    async def _exchange(
        self, method: str, url: URL, headers: dict[str, str], data: bytes | None, verb: str, resource: Resource
    ) -> tuple[int, bytes, str | None]:
        started = time.monotonic()
        try:
            async with self._session.request(
                method, url, headers=headers, data=data, timeout=self._timeout
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._on_call(verb, resource, 0, time.monotonic() - started)
            raise Unavailable(f"no answer from the API server: {str(error) or type(error).__name__}") from error
        self._on_call(verb, resource, response.status, time.monotonic() - started)
        return response.status, answer, response.headers.get("Retry-After")


def _path(resource: Resource, obj: Object, subresource: str | None = None) -> str:
    metadata = obj["metadata"]
    return resource.path(metadata.get("namespace"), metadata["name"], subresource)


def _selection(
    labels: Mapping[str, str] | None,
    without: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The part of a LIST's query that says which objects are meant."""
    selected = [f"{key}={value}" for key, value in (labels or {}).items()]
    selected += [f"{key}!={value}" for key, value in (without or {}).items()]
    at = [f"{path}={value}" for path, value in (fields or {}).items()]
    query = {"labelSelector": ",".join(selected), "fieldSelector": ",".join(at)}
    return {name: value for name, value in query.items() if value}


def _ignore(verb: str, resource: Resource, status: int, seconds: float) -> None:
    """Nobody counts the calls."""


def _object(answer: bytes) -> Object:
    try:
        document = from_json(answer)
    except ValueError as error:
        raise Unavailable(f"what answered is no API server: {answer[:200].decode(errors='replace')}") from error
    if not isinstance(document, dict):
        raise Unavailable(f"what answered is no API server: {answer[:200].decode(errors='replace')}")
    return document


_BY_STATUS: Final[Mapping[int, type[ClusterError]]] = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired}


def error_of(status: int, answer: bytes, retry_after: str | None = None) -> ClusterError:
    """What an answer that is no success means. `answer` is a `Status` object, or whatever a proxy in between wrote."""
    document: Any = None
    with contextlib.suppress(ValueError):  # not the API server's own answer: the text is all that there is to say
        document = json.loads(answer)
    if isinstance(document, dict) and document.get("kind") == "Status":
        message, reason = document.get("message") or f"HTTP {status}", document.get("reason", "")
        causes = (document.get("details") or {}).get("causes") or []
    else:
        message, reason, causes = f"HTTP {status}: {answer[:200].decode(errors='replace')}", "", []
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(message, status=status)
    if status == 422 and any(cause.get("field") == "metadata.uid" for cause in causes):
        # A patch's uid is no precondition to validation but a field like others, which can't be changed.
        return Conflict(message, status=status)
    if status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return Terminating(message, status=status)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message, status=status)
    if status in (401, 408, 429) or not 400 <= status < 500:
        return Unavailable(message, status=status, retry_after=_seconds(retry_after))
    return Invalid(message, status=status)


def _seconds(retry_after: str | None) -> float | None:
    """API servers send whole seconds; the date form of other servers is not worth a parser here."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None
