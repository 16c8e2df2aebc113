"""kopf's streams, read at a seam of its inside: what the operator needs of whatever version is installed."""

import asyncio
import json

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from pagoda_operator.cluster.connection import Connection
from pagoda_operator.cluster.resources import DEPLOYMENT, NODE
from pagoda_operator.controller.sources import WatchFailed
from pagoda_operator.controller.watch import KopfSource


class Server:
    """An API server of one kind: lists what it has, and plays each watch from its script, the last one for ever."""

    def __init__(self):
        self.items, self.scripts, self.requests = [], [], []

    async def handle(self, request):
        self.requests.append((request.path, dict(request.query), request.headers.get("Authorization")))
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "5"}, "items": self.items})
        script = self.scripts.pop(0)
        if isinstance(script, int):
            return web.json_response({"kind": "Status", "code": script, "message": "no"}, status=script)
        response = web.StreamResponse()
        await response.prepare(request)
        for change, obj in script:
            await response.write(json.dumps({"type": change, "object": obj}).encode() + b"\n")
        if not self.scripts:
            await asyncio.Event().wait()
        return response


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


class Told:
    """What a source tells, as words; each listing is one too."""

    def __init__(self, server, resource=DEPLOYMENT, namespaces=()):
        configuration = Configuration(host=server.url)
        configuration.api_key["BearerToken"] = "Bearer token"
        self._source = KopfSource(Connection(configuration, self._renew), namespaces)
        self._resource = resource
        self._words = asyncio.Queue()

    async def _renew(self):
        raise NotImplementedError

    async def __aenter__(self):
        def sink(event):
            self._words.put_nowait(f"{event.change} {event.object['metadata']['name']}")

        self.task = asyncio.create_task(
            self._source.run([self._resource], sink, lambda: self._words.put_nowait("listed"))
        )
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def next(self, count):
        async with asyncio.timeout(20):
            return [await self._words.get() for _ in range(count)]


def deployment(name, version):
    return {"metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": str(version)}}


async def test_what_there_is_is_told_and_then_what_changes(server):
    """Bookmarks tell nothing but where a watch goes on that ended."""
    server.items = [deployment("a", 1)]
    server.scripts = [
        [("MODIFIED", deployment("a", 6)), ("BOOKMARK", {"metadata": {"resourceVersion": "60"}})],
        [("ADDED", deployment("b", 61)), ("DELETED", deployment("a", 62))],
    ]
    async with Told(server) as told:
        assert await told.next(5) == ["ADDED a", "listed", "MODIFIED a", "ADDED b", "DELETED a"]
    assert {path for path, _, _ in server.requests} == {"/apis/apps/v1/deployments"}
    managed = "app.kubernetes.io/managed-by=pagoda-operator"
    assert {query["labelSelector"] for _, query, _ in server.requests} == {managed}
    assert {token for _, _, token in server.requests} == {"Bearer token"}
    assert [query.get("resourceVersion") for _, query, _ in server.requests] == [None, "5", "60"]


async def test_an_expired_watch_is_listed_anew_and_says_so(server):
    """What was deleted meanwhile is not told of: whoever hears of a listing looks for it."""
    server.items = [deployment("a", 1)]
    server.scripts = [[("ERROR", {"kind": "Status", "code": 410, "message": "too old"})], []]
    async with Told(server) as told:
        assert await told.next(4) == ["ADDED a", "listed"] * 2


async def test_a_namespace_is_watched_where_there_are_some_and_a_node_is_in_none(server):
    server.scripts = [[], []]
    async with Told(server, namespaces=["one", "two"]) as told:
        await told.next(2)
        async with asyncio.timeout(20):
            while len(server.requests) < 4:  # noqa: ASYNC110 - made true by the server's handler
                await asyncio.sleep(0.01)
    assert {path for path, _, _ in server.requests} == {
        f"/apis/apps/v1/namespaces/{namespace}/deployments" for namespace in ("one", "two")
    }
    server.requests.clear()
    server.scripts = [[]]
    async with Told(server, NODE, namespaces=["one", "two"]) as told:
        await told.next(1)
    assert [path for path, _, _ in server.requests][:1] == ["/api/v1/nodes"]
    assert "labelSelector" not in server.requests[0][1]


async def test_an_error_in_the_stream_ends_the_layer(server):
    server.scripts = [[("ERROR", {"kind": "Status", "code": 500, "message": "etcd is gone"})], []]
    async with Told(server) as told:
        await asyncio.wait([told.task], timeout=20)
        assert isinstance(told.task.exception(), WatchFailed)
        assert "etcd is gone" in str(told.task.exception())


async def test_a_refusal_that_stays_ends_the_layer_with_its_status(server):
    server.scripts = [404]
    async with Told(server) as told:
        await asyncio.wait([told.task], timeout=20)
        assert isinstance(told.task.exception(), WatchFailed)
        assert told.task.exception().status == 404


async def test_it_can_be_cancelled_and_run_again(server):
    server.items = [deployment("a", 1)]
    for _ in range(2):
        server.scripts = [[]]
        async with Told(server) as told:
            assert await told.next(2) == ["ADDED a", "listed"]
        assert told.task.cancelled()
