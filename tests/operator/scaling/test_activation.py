"""A gateway says over HTTP that it holds requests for a service."""

from __future__ import annotations

import json

import aiohttp
import pytest
from aiohttp import web

from pagoda_operator.cluster.resources import INFERENCE_SERVICE
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.store import Store
from pagoda_operator.scaling.activation import BODY_LIMIT, activation_route
from pagoda_operator.scaling.load import HOLD_SECONDS, Load

SERVICE = {"metadata": {"namespace": "default", "name": "qwen", "uid": "u", "resourceVersion": "1"}, "spec": {}}


@pytest.fixture
def loads():
    store = Store()
    store.put(INFERENCE_SERVICE, SERVICE)
    loads = ServiceLoads(store)
    loads.begin(frozenset())
    return loads


@pytest.fixture
async def post(loads):
    """Posts a body to a path of the endpoint; gives status and document."""
    app = web.Application()
    app.add_routes([activation_route(loads)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:

        async def post(path, body):
            async with session.post(url + path, data=body) as response:
                return response.status, await response.json()

        yield post
    await runner.cleanup()


async def test_held_requests_wait_for_a_service_without_replicas(post, loads):
    """It is told how long its word stands; 0 takes it back at once."""
    assert await post("/activate/default/qwen", b'{"requests": 3}') == (200, {"standsSeconds": HOLD_SECONDS})
    assert loads.of("default", "qwen") == Load(3, 0)
    await post("/activate/default/qwen", b'{"requests": 0}')
    assert loads.of("default", "qwen") == Load(0, 0)


async def test_a_service_that_is_not_there_is_named(post):
    status, document = await post("/activate/default/nobody", b'{"requests": 3}')
    assert (status, document) == (404, {"error": "there is no InferenceService default/nobody"})


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 4000, "no JSON"),
        (b"[3]", "lacks `requests`"),
        (b'{"held": 3}', "lacks `requests`"),
        (b'{"requests": "3"}', 'requests is "3"'),
        (b'{"requests": true}', "requests is true"),
        (b'{"requests": 1.5}', "requests is 1.5"),
        (b'{"requests": -1}', "requests is -1; it must be a whole number from 0 to"),
        (b'{"requests": 1e9}', "requests is 1000000000.0"),
        (b'{"requests": 1000001}', "requests is 1000001; it must be a whole number from 0 to 1000000"),
        (b'{"requests": %s}' % (b"9" * 4000), "it must be a whole number from 0 to 1000000"),
        (json.dumps({"requests": 3, "why": "x" * BODY_LIMIT}).encode(), f"more than {BODY_LIMIT} bytes"),
    ],
)
async def test_what_says_nothing_is_refused_with_the_fix(post, loads, body, word):
    status, document = await post("/activate/default/qwen", body)
    assert status == 400
    assert word in document["error"]
    assert loads.of("default", "qwen") == Load(0, 0)
