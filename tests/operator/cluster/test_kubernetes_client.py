"""What goes over the wire to an API server, and how patient we are with it."""

import json

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from pagoda_operator.cluster.connection import Connection, NotConfigured, connect
from pagoda_operator.cluster.errors import Conflict, Expired, NotFound, Unavailable
from pagoda_operator.cluster.kubernetes import KubernetesCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, INFERENCE_SERVICE, POD, SCALED_OBJECT

DEPLOYED = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "qwen", "namespace": "default"},
    "spec": {"replicas": 2},
}


class Server:
    """A server that answers what it was told to, in order, and notes what it was asked."""

    def __init__(self):
        self.answers, self.requests = [], []

    def say(self, status, body, **headers):
        self.answers.append((status, body, headers))

    def refuse(self, status, reason="", **headers):
        document = {"kind": "Status", "status": "Failure", "reason": reason, "message": f"because {reason}"}
        self.say(status, document, **headers)

    async def handle(self, request):
        self.requests.append((request.method, request.path, dict(request.query), request.headers, await request.text()))
        status, body, headers = self.answers.pop(0)
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def cluster(server):
    configuration = Configuration(host=server.url)
    configuration.api_key["BearerToken"] = "Bearer first"

    async def renew():
        configuration.api_key["BearerToken"] = "Bearer second"

    calls = []
    cluster = KubernetesCluster(Connection(configuration, renew), on_call=lambda *call: calls.append(call[:3]))
    cluster.calls = calls
    yield cluster
    await cluster.close()


async def test_an_apply_names_its_manager_and_whether_it_forces(server, cluster):
    server.say(201, DEPLOYED)
    assert await cluster.apply(DEPLOYMENT, DEPLOYED, force=False) == DEPLOYED
    method, path, query, headers, body = server.requests[0]
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/default/deployments/qwen")
    assert query == {"fieldManager": "pagoda-operator", "force": "false"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == "Bearer first"
    assert json.loads(body) == DEPLOYED
    assert cluster.calls == [("apply", DEPLOYMENT, 201)]


async def test_a_status_is_applied_to_its_subresource(server, cluster):
    service = {"metadata": {"name": "qwen", "namespace": "default"}, "status": {"ready": "1/1"}}
    server.say(200, service)
    await cluster.apply_status(INFERENCE_SERVICE, service)
    _, path, query, _, _ = server.requests[0]
    assert path == "/apis/pagoda.dev/v1alpha1/namespaces/default/inferenceservices/qwen/status"
    assert query["force"] == "true"


async def test_a_deletion_names_the_one_that_is_meant(server, cluster):
    server.say(200, {"kind": "Status"})
    await cluster.delete(DEPLOYMENT, "default", "qwen", uid="u1")
    body = json.loads(server.requests[0][4])
    assert body["preconditions"] == {"uid": "u1"}
    assert body["propagationPolicy"] == "Background"


async def test_a_long_list_is_read_page_by_page(server, cluster):
    server.say(200, {"metadata": {"continue": "a/b="}, "items": [{"metadata": {"name": "one"}}]})
    server.say(200, {"metadata": {}, "items": [{"metadata": {"name": "two"}}]})
    pods = await cluster.list(POD, "default", labels={"app": "x", "tier": "y"})
    assert [pod["metadata"]["name"] for pod in pods] == ["one", "two"]
    assert all((pod["apiVersion"], pod["kind"]) == ("v1", "Pod") for pod in pods)
    assert [query for _, _, query, _, _ in server.requests] == [
        {"limit": "100", "labelSelector": "app=x,tier=y"},
        {"limit": "100", "labelSelector": "app=x,tier=y", "continue": "a/b="},
    ]


async def test_a_list_of_what_is_not_ours_on_one_node_is_selected_by_the_server(server, cluster):
    server.say(200, {"metadata": {}, "items": None})
    assert await cluster.list(POD, labels={"a": "1"}, without={"b": "2"}, fields={"spec.nodeName": "n1"}) == []
    query = server.requests[0][2]
    assert query["labelSelector"] == "a=1,b!=2"
    assert query["fieldSelector"] == "spec.nodeName=n1"


async def test_a_list_of_metadata_asks_for_nothing_more(server, cluster):
    item = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "one"}}
    server.say(200, {"metadata": {}, "items": [item]})
    pods = await cluster.list(POD, metadata_only=True)
    assert pods == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}}]
    accepted = server.requests[0][3]["Accept"]
    assert accepted.startswith("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")


async def test_an_empty_list_of_metadata_is_null_on_the_wire(server, cluster):
    server.say(200, {"metadata": {}, "items": None})
    assert await cluster.list(POD, metadata_only=True) == []


async def test_a_list_whose_pages_expire_is_read_in_one_piece(server, cluster):
    server.say(200, {"metadata": {"continue": "t"}, "items": [{"metadata": {"name": "one"}}]})
    server.refuse(410, "Expired")
    server.say(200, {"metadata": {}, "items": [{"metadata": {"name": "new"}}]})
    assert [pod["metadata"]["name"] for pod in await cluster.list(POD)] == ["new"]
    assert server.requests[-1][2] == {"limit": "0"}


async def test_a_list_that_expires_even_so_is_told(server, cluster):
    server.refuse(410, "Expired")
    server.refuse(410, "Expired")
    with pytest.raises(Expired):
        await cluster.list(POD)


async def test_a_server_that_asks_for_patience_is_asked_again(server, cluster):
    server.refuse(429, "TooManyRequests", Retry_After="0")
    server.refuse(503, "ServiceUnavailable", Retry_After="0")
    server.say(200, DEPLOYED)
    assert await cluster.get(DEPLOYMENT, "default", "qwen") == DEPLOYED
    assert [status for _, _, status in cluster.calls] == [429, 503, 200]


@pytest.mark.parametrize(("header", "attempts"), [("0", 3), ("3600", 1), (None, 1)])
async def test_patience_has_an_end(server, cluster, header, attempts):
    for _ in range(3):
        server.refuse(429, "TooManyRequests", **({"Retry_After": header} if header else {}))
    with pytest.raises(Unavailable) as raised:
        await cluster.get(DEPLOYMENT, "default", "qwen")
    assert len(server.requests) == attempts
    assert raised.value.retry_after == (None if header is None else float(header))


async def test_a_stale_token_is_renewed(server, cluster):
    server.refuse(401, "Unauthorized")
    server.say(200, DEPLOYED)
    await cluster.get(DEPLOYMENT, "default", "qwen")
    assert [headers["Authorization"] for _, _, _, headers, _ in server.requests] == ["Bearer first", "Bearer second"]


async def test_a_refusal_is_not_repeated(server, cluster):
    server.refuse(409, "Conflict")
    with pytest.raises(Conflict, match="because Conflict"):
        await cluster.apply(DEPLOYMENT, DEPLOYED, force=True)
    assert len(server.requests) == 1


async def test_a_kind_is_served_or_not(server, cluster):
    server.refuse(404, "NotFound")
    server.say(200, {"resources": [{"name": "scaledjobs"}]})
    server.say(200, {"resources": [{"name": "scaledjobs"}, {"name": "scaledobjects"}]})
    assert [await cluster.served(SCALED_OBJECT) for _ in range(3)] == [False, False, True]
    assert server.requests[0][1] == "/apis/keda.sh/v1alpha1"


async def test_what_is_no_api_server_is_told(server, cluster):
    server.say(200, "<html>welcome to the proxy</html>")
    with pytest.raises(Unavailable, match="no API server: <html>welcome"):
        await cluster.get(DEPLOYMENT, "default", "qwen")


async def test_no_answer_is_told_and_counted(server, cluster):
    cluster.connection.configuration.host = "http://127.0.0.1:1"
    with pytest.raises(Unavailable, match="no answer"):
        await cluster.get(DEPLOYMENT, "default", "qwen")
    assert cluster.calls == [("get", DEPLOYMENT, 0)]


async def test_not_found_is_not_found(server, cluster):
    server.refuse(404, "NotFound")
    with pytest.raises(NotFound):
        await cluster.get(DEPLOYMENT, "default", "qwen")


async def test_a_kubeconfig_says_where_the_server_is(tmp_path, server):
    path = tmp_path / "config"
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{server.url}"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""
    )
    credentials = await (await connect(str(path))).credentials()
    assert (credentials.server, credentials.token) == (server.url, "secret")


async def test_a_missing_kubeconfig_is_told_with_the_fix(tmp_path):
    with pytest.raises(NotConfigured, match="--kubeconfig or KUBECONFIG"):
        await connect(str(tmp_path / "none"))
