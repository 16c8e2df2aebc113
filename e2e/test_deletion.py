"""Deletion is Kubernetes' own: no finalizer, nothing left but what was to be kept."""

from __future__ import annotations

from e2e.services import KIND, Services, service


def test_every_child_goes_with_its_service(services: Services) -> None:
    """After `kubectl delete` no child, no pod and no process is left; a retained cache is, and is used again."""
    cluster, place = services.cluster, ("-n", services.namespace)
    cluster.apply(
        service("plain", services.namespace, autoscaling={"maxReplicas": 1}),
        service("keeper", services.namespace, cache={"retain": True}),
    )
    for name in ("plain", "keeper"):
        services.wait_ready(name)
    assert not services.get("plain")["metadata"].get("finalizers")
    volume = cluster.get("pvc", "keeper-models", *place)["spec"]["volumeName"]
    cluster.kubectl("delete", KIND, "plain", "keeper", *place, "--timeout=60s")
    cluster.eventually(lambda: not services.children("plain"), "no child of plain is left", seconds=90)
    kept = {"PersistentVolumeClaim/keeper-models"}
    cluster.eventually(lambda: services.children("keeper") == kept, "the kept claim alone is left", seconds=90)
    cluster.eventually(lambda: not cluster.objects("pods", *place), "no pod is left", seconds=90)

    cluster.apply(service("keeper", services.namespace, cache={"retain": True}))
    services.wait_ready("keeper")
    assert cluster.get("pvc", "keeper-models", *place)["spec"]["volumeName"] == volume
    assert services.status("keeper")["cache"]["state"] == "Ready"
