"""The external metrics API, as the API server's front proxy meets it: real TLS, real HTTP."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import aiohttp
import pytest

from pagoda_operator.scaling.certificates import Authorities
from pagoda_operator.scaling.external_metrics import serve_external_metrics
from pagoda_operator.scaling.front_proxy import FrontProxy
from pagoda_operator.scaling.load import Load
from pagoda_operator.scaling.tls import RotatingTls

ROOT = "/apis/external.metrics.k8s.io/v1beta1"
WAITING = f"{ROOT}/namespaces/default/vllm:num_requests_waiting"
RUNNING = f"{ROOT}/namespaces/default/vllm:num_requests_running"
QWEN = {"labelSelector": "pagoda.dev/service=qwen"}


class Known:
    """Loads that are what a test says."""

    def __init__(self):
        self.loads = {("default", "qwen"): Load(waiting=7, running=16), ("default", "idle"): Load(0, 0)}

    def pressing(self, namespace, name):
        return self.loads.get((namespace, name))


class Server:
    """`get(path, query)` as the front proxy, or as whom a test says: status and document."""

    def __init__(self, port, trusted, clients, folder):
        self._url = f"https://localhost:{port}"
        self._trusted = trusted
        self._chain = folder / "client.pem"
        self.clients = clients

    async def get(self, path, query=None, *, name="front-proxy-client", method="GET"):
        context = ssl.create_default_context(cadata=self._trusted.bundle.decode())
        if name is not None:
            self._chain.write_bytes(self.clients.sign(name))
            context.load_cert_chain(self._chain)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self._url + path, params=query, ssl=context) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def front_proxies():
    """Whom the server takes requests from; a list, so that a test may take it away."""
    return []


@pytest.fixture
async def server(tmp_path, known, client_authority, front_proxies):
    trusted, clients, tls = Authorities().renewed(datetime.now(UTC)), client_authority(), RotatingTls()
    tls.use(trusted.issue(("localhost",), datetime.now(UTC)), clients.pem)
    front_proxies.append(FrontProxy(clients.pem, frozenset({"front-proxy-client"})))

    def who():
        return front_proxies[-1] if front_proxies else None

    async with serve_external_metrics("127.0.0.1", 0, known, tls, who) as port:
        yield Server(port, trusted, clients, tmp_path)


async def test_discovery_names_the_two_metrics(server):
    """What the API server asks of an extension before it calls it available, and what kubectl api-resources shows."""
    status, found = await server.get(ROOT)
    assert (status, found["kind"], found["groupVersion"]) == (
        200,
        "APIResourceList",
        "external.metrics.k8s.io/v1beta1",
    )
    assert [resource["name"] for resource in found["resources"]] == [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
    ]
    assert all(resource["verbs"] == ["get"] and resource["namespaced"] for resource in found["resources"])
    status, group = await server.get("/apis/external.metrics.k8s.io")
    assert (status, group["preferredVersion"]["version"]) == (200, "v1beta1")


@pytest.mark.parametrize(("path", "value"), [(WAITING, "7"), (RUNNING, "16")])
async def test_a_metric_is_the_sum_over_the_replicas_now(server, path, value):
    """The HPA divides it by the replicas itself (target AverageValue)."""
    status, found = await server.get(path, QWEN)
    assert (status, found["kind"], found["apiVersion"]) == (
        200,
        "ExternalMetricValueList",
        "external.metrics.k8s.io/v1beta1",
    )
    (item,) = found["items"]
    assert item["value"] == value
    assert item["metricName"] == path.rpartition("/")[2]
    assert item["metricLabels"] == {"pagoda.dev/service": "qwen"}
    age = datetime.now(UTC) - datetime.fromisoformat(item["timestamp"])
    assert 0 <= age.total_seconds() < 60


async def test_no_load_is_a_value_and_not_the_lack_of_one(server):
    """An idle service reports 0, so that the HPA scales it down."""
    _, found = await server.get(WAITING, {"labelSelector": "pagoda.dev/service=idle"})
    assert [item["value"] for item in found["items"]] == ["0"]


@pytest.mark.parametrize(
    "selector",
    [
        "pagoda.dev/service=qwen",
        "pagoda.dev/service==qwen",
        "pagoda.dev/service = qwen",
        "pagoda.dev/service in (qwen)",
    ],
)
async def test_a_selector_may_be_written_in_all_ways_that_mean_one_service(server, selector):
    status, found = await server.get(WAITING, {"labelSelector": selector})
    assert (status, len(found["items"])) == (200, 1)


@pytest.mark.parametrize(
    ("path", "selector", "code", "words"),
    [
        (WAITING, "", 400, "it must name one InferenceService: labelSelector=pagoda.dev/service=NAME"),
        (WAITING, "app=qwen", 400, "labelSelector is 'app=qwen'"),
        (WAITING, "pagoda.dev/service in (a,b)", 400, "must name one InferenceService"),
        (WAITING, "pagoda.dev/service!=qwen", 400, "must name one InferenceService"),
        (WAITING, "pagoda.dev/service=gone", 404, "InferenceService default/gone is not known"),
        (f"{ROOT}/namespaces/default/cpu", "pagoda.dev/service=qwen", 404, "there is no metric 'cpu' here"),
        (f"{ROOT}/namespaces/default", "", 404, "Not Found"),
        ("/openapi/v2", "", 404, "Not Found"),
    ],
)
async def test_a_refusal_is_a_status_that_says_the_fix(server, path, selector, code, words):
    """Its message is what the HPA's condition shows, and `kubectl describe hpa`."""
    status, found = await server.get(path, {"labelSelector": selector})
    assert (status, found["kind"], found["code"]) == (code, "Status", code)
    assert words in found["message"]


async def test_a_value_is_never_made_up(server, known):
    """While nobody knows the load there is no value: the HPA then leaves the replicas as they are."""
    known.loads.clear()
    status, found = await server.get(WAITING, QWEN)
    assert (status, found["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("name", [None, "somebody"], ids=["no certificate", "another name"])
@pytest.mark.parametrize("path", [ROOT, WAITING, "/openapi/v2"])
async def test_only_the_front_proxy_is_answered(server, name, path):
    """Also one who has a certificate of the same authority: it must have an allowed name."""
    status, found = await server.get(path, QWEN, name=name)
    assert (status, found["reason"]) == (401, "Unauthorized")


async def test_nobody_is_answered_while_the_front_proxy_is_unknown(server, front_proxies):
    front_proxies.clear()
    status, _ = await server.get(ROOT)
    assert status == 401


async def test_nothing_can_be_written(server):
    status, found = await server.get(WAITING, QWEN, method="DELETE")
    assert (status, found["kind"]) == (405, "Status")


def test_an_empty_list_of_names_allows_any():
    """As the API server's own flag: `--requestheader-allowed-names` unset."""
    certificate = {"subject": ((("commonName", "whoever"),),)}
    assert FrontProxy("", frozenset()).is_shown_by(certificate)
    assert not FrontProxy("", frozenset()).is_shown_by({})
    assert not FrontProxy("", frozenset({"front-proxy"})).is_shown_by(certificate)


def test_the_front_proxy_is_read_as_the_api_server_publishes_it():
    data = {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": '["front-proxy-client"]'}
    found = FrontProxy.from_config_map({"data": data})
    assert found == FrontProxy("PEM", frozenset({"front-proxy-client"}))


@pytest.mark.parametrize("data", [None, {}, {"requestheader-client-ca-file": ""}])
def test_an_api_server_without_aggregation_is_told(data):
    with pytest.raises(ValueError, match="aggregation layer is off; start it with --requestheader-client-ca-file"):
        FrontProxy.from_config_map({"data": data})
