"""Replicas: by hand, and by a scaler."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.api import Object
from e2e.services import KIND, Services, service

DISCOVERY_SECONDS = 90.0
"""The operator looks for new kinds once a minute."""
SCALED_OBJECTS = "scaledobjects.keda.sh"


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


@pytest.fixture
def keda(services: Services) -> Iterator[None]:
    """KEDA's kinds, as far as the API server knows them; KEDA itself does not run."""
    folder = str(services.cluster.binaries.keda.crds)
    yield services.cluster.kubectl("apply", "--server-side", "-f", folder)
    services.cluster.kubectl("delete", "-f", folder, "--timeout=60s")


def scaler(services: Services, kind: str) -> Object | None:
    return services.cluster.find(kind, "tiny", "-n", services.namespace)


def test_a_scaler_exists_only_when_asked_for(services: Services) -> None:
    """spec.autoscaling makes a HorizontalPodAutoscaler of the service's own scale; without it there is none."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 3, "waitingRequests": 4}
    services.cluster.apply(service("tiny", services.namespace, replicas=0, autoscaling=autoscaling))
    found = services.cluster.eventually(lambda: scaler(services, "hpa"), "there is an HPA")
    assert found["spec"]["scaleTargetRef"]["kind"] == "InferenceService"
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (1, 3)
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
