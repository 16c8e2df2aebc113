"""A bad network in front of the API server: a TLS proxy for one client that breaks what its rules say.

Requests are passed on with their own credentials, so the API server sees the client as it is; answers come back as
streams, so that a watch is a watch. `rules` spoil requests, by chance from a seed; `cut`, `expire` and `silence` strike
the watches that are open. Whatever the API server itself does (refuse, break off, be away) goes through as it is.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import subprocess
from collections import Counter
from pathlib import Path

import aiohttp
from aiohttp import web
from e2e.faults import Call, Delay, Drop, Fault, Hang, LoseAnswer, Refuse, Rule

HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"})
STOP_SECONDS = 1.0
LONGEST_LINE = 1 << 22
"""Bytes of one event of a watch."""


class FaultProxy:
    """An async context manager; listens on `address` at a free port. `folder` gets its certificate and key."""

    def __init__(self, upstream: str, ca: Path, address: str, folder: Path) -> None:
        self.rules: tuple[Rule, ...] = ()
        self.chance = random.Random(0)
        self.struck: Counter[str] = Counter()
        """How many calls were spoilt, by their verb."""
        self.certificate = folder / "proxy.crt"
        self._key = folder / "proxy.key"
        self._upstream = upstream
        self._ca = ca
        self._address = address
        self._watches: set[_Watch] = set()
        self._silent = False
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"https://{host}:{port}"

    async def __aenter__(self) -> FaultProxy:
        self._make_certificate()
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(self.certificate, self._key)
        theirs = ssl.create_default_context(cafile=str(self._ca))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=theirs, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=LONGEST_LINE,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address, 0, ssl_context=own).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    # --- the weather -------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Good weather: no rule, and watches that were silenced break off, as dead connections do in the end."""
        self.rules = ()
        if self._silent:
            self._silent = False
            self.cut()

    def cut(self) -> None:
        """Break all watches off, in the middle of whatever they were telling."""
        for watch in self._watches:
            watch.abort()

    def expire(self) -> None:
        """Tell every watch that its version is too old (410), and end it."""
        for watch in self._watches:
            watch.expired.set()

    def silence(self) -> None:
        """From now on open watches tell nothing any more, not even bookmarks; those opened later do."""
        self._silent = True
        for watch in self._watches:
            watch.silent = True

    # --- the requests ------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        call = Call.of(request.method, request.path, request.query)
        fault = self._draw(call)
        match fault:
            case Refuse():
                return _refusal(fault)
            case Hang(seconds=seconds):
                await asyncio.sleep(seconds)
                return _abort(request)
            case Drop():
                return _abort(request)
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
        try:
            return await self._pass_on(request, call, answer_arrives=not isinstance(fault, LoseAnswer))
        except (aiohttp.ClientError, OSError):
            return _abort(request)  # the API server's end of it broke off, or the client's

    def _draw(self, call: Call) -> Fault | None:
        for rule in self.rules:
            if rule.concerns(call) and self.chance.random() < rule.rate:
                self.struck[call.verb] += 1
                return rule.fault
        return None

    async def _pass_on(self, request: web.Request, call: Call, *, answer_arrives: bool) -> web.StreamResponse:
        if self._session is None:
            raise RuntimeError("the proxy is not started")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = self._upstream + request.raw_path
        body = await request.read()
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            if not answer_arrives:
                await answer.read()
                return _abort(request)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            told = web.StreamResponse(status=answer.status, headers=kept)
            await told.prepare(request)
            if call.verb == "watch" and answer.status == 200:
                await self._watch(request, answer, told)
            else:
                async for chunk in answer.content.iter_any():
                    await told.write(chunk)
            await told.write_eof()
            return told

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse, told: web.StreamResponse) -> None:
        watch = _Watch(request)
        self._watches.add(watch)
        expired = asyncio.create_task(watch.expired.wait())
        try:
            while True:
                line = asyncio.create_task(answer.content.readline())
                try:
                    await asyncio.wait([line, expired], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not line.done():
                        line.cancel()
                if expired.done():
                    await told.write(_EXPIRED)
                    return
                if not (text := await line):
                    if watch.silent:
                        await expired  # whatever died in between does not tell of the end either
                    return
                if not watch.silent:
                    await told.write(text)
        finally:
            expired.cancel()
            self._watches.discard(watch)

    def _make_certificate(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=fault-proxy", "-addext", f"subjectAltName=IP:{self._address}"]
        command += ["-keyout", str(self._key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)


class _Watch:
    """One open watch."""

    def __init__(self, request: web.Request) -> None:
        self.silent = False
        self.expired = asyncio.Event()
        self._request = request

    def abort(self) -> None:
        _abort(self._request)


_EXPIRED = (
    json.dumps(
        {
            "type": "ERROR",
            "object": {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "Expired",
                "message": "too old resource version",
                "code": 410,
            },
        }
    ).encode()
    + b"\n"
)


def _refusal(fault: Refuse) -> web.Response:
    reasons = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 504: "Timeout"}
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reasons.get(fault.code, "ServiceUnavailable"),
        "message": f"the fault proxy answers {fault.code}",
        "code": fault.code,
    }
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(status, status=fault.code, headers=headers)


def _abort(request: web.Request) -> web.Response:
    """Break the connection; what is returned arrives nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
