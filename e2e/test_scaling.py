"""Replicas: by hand, and by a scaler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import pytest
from e2e.api import Object
from e2e.cluster import Cluster
from e2e.services import KIND, Services, service

from pagoda_engine.contract import ModelFacts
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.plan import plan
from pagoda_operator.core.settings import Settings

DISCOVERY_SECONDS = 90.0
"""The operator looks for new kinds once a minute."""
SCALED_OBJECTS = "scaledobjects.keda.sh"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_kubectl_scale_works_as_on_a_deployment(services: Services) -> None:
    """`kubectl scale infsvc --replicas` goes through the scale subresource, up and down."""
    services.cluster.apply(service("tiny", services.namespace))
    services.wait_ready("tiny")
    for replicas in (2, 1):
        services.cluster.kubectl("scale", "infsvc", "tiny", f"--replicas={replicas}", "-n", services.namespace)
        services.wait_ready("tiny", replicas)
        assert services.status("tiny")["ready"] == f"{replicas}/{replicas}"
    scale = services.cluster.kubectl(
        "get", "--raw", f"/apis/pagoda.dev/v1alpha1/namespaces/{services.namespace}/inferenceservices/tiny/scale"
    )
    assert '"selector":"pagoda.dev/service=tiny"' in scale, "scalers find the pods by it"


@pytest.fixture(scope="module")
def keda(bare_cluster: Cluster) -> Iterator[None]:
    """KEDA's kinds, as far as the API server knows them; KEDA itself does not run."""
    folder = str(bare_cluster.binaries.keda.crds)
    bare_cluster.kubectl("apply", "--server-side", "-f", folder)
    bare_cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", folder)
    yield
    bare_cluster.kubectl("delete", "-f", folder, "--timeout=60s")


def scaler(services: Services, kind: str) -> Object | None:
    return services.cluster.find(kind, "tiny", "-n", services.namespace)


def test_a_scaler_exists_only_when_asked_for(services: Services) -> None:
    """spec.autoscaling makes a HorizontalPodAutoscaler of the service's own scale; without it there is none.

    While it can't work, for want of replicas, then of an adapter, the condition says so and what helps; as where KEDA
    is asked for and absent.
    """
    autoscaling = {"minReplicas": 1, "maxReplicas": 3, "waitingRequests": 4}
    services.cluster.apply(
        service("tiny", services.namespace, replicas=0, autoscaling=autoscaling),
        service("other", services.namespace, replicas=0, autoscaling=autoscaling | {"provider": "keda"}),
    )
    found = services.cluster.eventually(lambda: scaler(services, "hpa"), "there is an HPA")
    assert found["spec"]["scaleTargetRef"]["kind"] == "InferenceService"
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (1, 3)
    services.told("other", "ScalingReady", "KedaAbsent", "install KEDA, or set provider to auto")
    services.told("tiny", "ScalingReady", "ScaledToZero", "kubectl scale infsvc tiny --replicas=1")
    services.cluster.kubectl("scale", "infsvc", "tiny", "--replicas=1", "-n", services.namespace)
    services.told("tiny", "ScalingReady", "AdapterAbsent", "install prometheus-adapter")
    patch = '{"spec": {"autoscaling": null}}'
    services.cluster.kubectl("patch", KIND, "tiny", "-n", services.namespace, "--type=merge", "-p", patch)
    services.cluster.eventually(lambda: scaler(services, "hpa") is None, "the HPA is gone")


@pytest.mark.usefixtures("keda")
def test_keda_takes_over_where_it_is_installed(services: Services) -> None:
    """With KEDA's kinds in the cluster the scaler is a ScaledObject, and no HPA of ours is beside it."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 3}
    services.cluster.apply(service("tiny", services.namespace, replicas=0, autoscaling=autoscaling))
    found = services.cluster.eventually(
        lambda: scaler(services, SCALED_OBJECTS), "there is a ScaledObject", seconds=DISCOVERY_SECONDS
    )
    assert found["spec"]["scaleTargetRef"]["kind"] == "InferenceService"
    assert found["spec"]["maxReplicaCount"] == 3
    services.cluster.eventually(lambda: scaler(services, "hpa") is None, "no HPA is left")
    services.told("tiny", "ScalingReady", "ScalerStarting", "see that KEDA runs")


EXTREMES: Final[tuple[Object, ...]] = (
    {"minReplicas": 0, "maxReplicas": 1, "provider": "keda", "idleSeconds": 0, "fallbackReplicas": 1},
    {"minReplicas": 1000, "maxReplicas": 1000, "waitingRequests": 100000, "runningRequests": 100000},
    {
        "maxReplicas": 2,
        "scaleUp": {"stabilizationWindowSeconds": 3600, "selectPolicy": "Disabled", "tolerance": 0},
        "scaleDown": {
            "policies": [
                {"type": "Percent", "value": 100000, "periodSeconds": 1800},
                {"type": "Pods", "value": 1, "periodSeconds": 1},
            ],
            "tolerance": "2.5",
        },
    },
    {
        "maxReplicas": 2,
        "prometheusAuthentication": {
            "name": "a.b-c",
            "kind": "ClusterTriggerAuthentication",
            "modes": ["tls", "oauth"],
        },
    },
)
"""What `spec.autoscaling` may ask at most."""
LONGEST: Final = "a" * 50


@pytest.mark.usefixtures("keda", "release")
@pytest.mark.parametrize("autoscaling", EXTREMES, ids=lambda autoscaling: ",".join(autoscaling))
def test_what_is_admitted_makes_a_scaler_that_is_admitted(bare_cluster: Cluster, autoscaling: Object) -> None:
    """Neither KEDA's schema nor the HPA's refuses what our own lets pass, so that no service is stuck half-way."""
    asked = service(LONGEST, "default", autoscaling=autoscaling)
    bare_cluster.kubectl("apply", "--dry-run=server", "-f", "-", text=json.dumps(asked))
    model = ModelFacts("LlamaForCausalLM", "bfloat16", 2**20, 2**20, 2, 2, 2, 64, 128, 1000, 2048)
    for facts in (Facts(now=NOW, model=model, served=frozenset({"ScaledObject"})), Facts(now=NOW, model=model)):
        placed = {**asked, "metadata": {**asked["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
        made = plan(placed, facts, Settings(prometheus_address="http://prometheus:9090", scaler_address="pagoda:9443"))
        scalers = [child for child in made.apply if child["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
        assert len(scalers) == (1 if facts.served or autoscaling.get("provider") != "keda" else 0)
        for child in scalers:
            bare_cluster.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", text=json.dumps(child))
