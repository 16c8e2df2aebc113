"""The harness itself, before anything of Pagoda: pods are processes with probes, addresses, volumes and an end."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from e2e.api import Object
from e2e.cluster import Cluster

SERVE = "test $(id -u) = 1000 && cd /data && echo $WORD > word && exec python -m http.server 8000 --bind 0.0.0.0"


@pytest.fixture
def namespace(bare_cluster: Cluster) -> Iterator[str]:
    bare_cluster.kubectl("create", "namespace", "harness")
    yield "harness"
    bare_cluster.kubectl("delete", "namespace", "harness", "--timeout=60s")


def web(namespace: str, word: str) -> list[Object]:
    """A Deployment of file servers whose root is a claim, and its Service."""
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": "python",
        "command": ["sh", "-c", SERVE],
        "env": [{"name": "WORD", "value": word}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/word", "port": "http"}, "periodSeconds": 1},
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    metadata = {"name": "web", "namespace": namespace}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
                        "containers": [container],
                        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "web"}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    ]


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode().strip())


def endpoints(cluster: Cluster, namespace: str) -> set[str]:
    """Addresses at which the Service is ready to answer."""
    slices = cluster.objects("endpointslices", "-n", namespace)
    found = [endpoint for one in slices for endpoint in one.get("endpoints") or ()]
    return {address for one in found if one["conditions"].get("ready") for address in one["addresses"]}


def addresses(cluster: Cluster, namespace: str) -> set[str]:
    """Of the pods that stay."""
    pods = [pod for pod in cluster.objects("pods", "-n", namespace) if "deletionTimestamp" not in pod["metadata"]]
    return {pod["status"].get("podIP", "") for pod in pods}


def volumes(cluster: Cluster, namespace: str) -> list[Object]:
    """Those that claims of the namespace hold, or held."""
    found = cluster.objects("persistentvolumes")
    return [one for one in found if one["spec"].get("claimRef", {}).get("namespace") == namespace]


def test_a_deployment_becomes_ready_rolls_out_and_goes(bare_cluster: Cluster, namespace: str) -> None:
    """Two pods behind a Service answer; a new template replaces them; deletion leaves no pod and no volume."""
    bare_cluster.apply(*web(namespace, "one"))
    bare_cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    with bare_cluster.proxy(namespace, "web") as url:
        assert [read(f"{url}/word") for _ in range(4)] == ["one"] * 4
        bare_cluster.apply(*web(namespace, "two"))
        bare_cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
        bare_cluster.eventually(lambda: endpoints(bare_cluster, namespace) == addresses(bare_cluster, namespace), "two")
        assert read(f"{url}/word") == "two"
    bare_cluster.kubectl("delete", "deployment,service,pvc", "web", "-n", namespace, "--timeout=60s")
    bare_cluster.eventually(lambda: not bare_cluster.objects("pods", "-n", namespace), "the pods are gone")
    bare_cluster.eventually(lambda: not volumes(bare_cluster, namespace), "the volume is gone")
