"""A user's way: apply, wait, ask; what `kubectl get` shows; what Kubernetes lets a pod be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from e2e.audit import requests
from e2e.cluster import KubectlError
from e2e.nodes import H100, Machine
from e2e.release import Release
from e2e.services import Services, chat, service

EXAMPLE = Path(__file__).parent.parent / "examples" / "smollm2.yaml"
EIGHT_GPUS = Machine("gpu-1", gpu=H100, gpus=8)
COLUMNS = ["NAME", "READY", "REASON", "MODEL", "GPU", "TP", "REPLICAS", "CACHE", "WAITING", "URL", "AGE"]


def test_the_example_answers_with_paris(services: Services) -> None:
    """The file that a laptop runs, applied to a cluster: the real model comes from PyPI and knows a capital."""
    services.cluster.kubectl("apply", "-n", services.namespace, "-f", str(EXAMPLE))
    name = yaml.safe_load(EXAMPLE.read_text())["metadata"]["name"]
    services.wait_ready(name, seconds=240)
    model = services.status(name)["model"]
    with services.cluster.proxy(services.namespace, name) as url:
        assert "Paris" in chat(url, model, "What is the capital of France?", max_tokens=32)


@pytest.fixture
def gpu_node(services: Services) -> Iterator[Machine]:
    """A node with GPUs by its labels; the engines on it are told to use the CPU that is really there."""
    services.cluster.add_node(EIGHT_GPUS)
    yield EIGHT_GPUS
    services.cluster.remove_node(EIGHT_GPUS.name)


def test_columns_say_what_is_served_and_where(services: Services, gpu_node: Machine) -> None:
    """`kubectl get infsvc` of a ready service, with GPUs as the planner chose them from Node labels."""
    engine = {"extraArgs": ["--device=cpu"]}
    services.cluster.apply(service("tiny", services.namespace, accelerator="auto", engine=engine))
    services.wait_ready("tiny")
    services.cluster.eventually(lambda: "queue" in services.status("tiny"), "the pod was asked for its queue")
    header, row = services.cluster.kubectl("get", "infsvc", "-n", services.namespace).splitlines()
    assert header.split() == COLUMNS
    # The GPU's column holds a blank.
    cells = row.replace("1x H100", "1x_H100").split()
    assert cells[:8] == ["tiny", "True", "Serving", "tiny", "1x_H100-80GB-HBM3", "1", "1/1", "Ready"]
    assert cells[8:10] == ["0", f"http://tiny.{services.namespace}/v1"]
    pod = services.pods("tiny")[0]
    assert pod["spec"]["nodeName"] == gpu_node.name, "the pod asks for the GPU that the plan names"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_pod_security_is_enforced(services: Services) -> None:
    """The namespaces of these scenarios refuse a pod that is not `restricted`: engine pods passed a real gate."""
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        services.cluster.kubectl("run", "root", "-n", services.namespace, "--image=pagoda-engine")


def test_the_operator_is_not_an_administrator(services: Services, release: Release) -> None:
    """Its ServiceAccount can do its work and cannot read Secrets, make pods or write specs of its own kind."""
    cluster, began = services.cluster, datetime.now(UTC)

    def may(*what: str) -> bool:
        try:
            return cluster.kubectl("auth", "can-i", *what, "-A", f"--as={release.user}").strip() == "yes"
        except KubectlError:
            return False  # `no` exits with 1

    assert may("patch", "deployments.apps")
    assert not may("get", "secrets")
    assert not may("create", "pods")
    assert not may("patch", "inferenceservices.pagoda.dev")
    cluster.apply(service("tiny", services.namespace, replicas=0))
    services.wait("tiny", "WorkloadReady", "True")
    calls = requests(cluster.control_plane.audit_log, release.user, since=began)
    assert calls, "the operator speaks to the API server as its ServiceAccount"
    assert [str(call) for call in calls if not call.is_allowed] == [], "whatever it asks for, it may"
