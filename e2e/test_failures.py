"""What can't work is said in the status, in words that help; what is broken never stands in the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.api import Object
from e2e.nodes import Gpu, Machine
from e2e.services import Services, service

from pagoda_engine.contract import ExitCode

SMALL = Machine("gpu-small", gpu=Gpu("NVIDIA-T400", 2048), gpus=1)
DRAINED = Machine("drained", labels={"pool": "drained"})


def on(node: Machine) -> dict[str, str]:
    return {"kubernetes.io/hostname": node.name}


def failed(services: Services, name: str) -> Object | None:
    """The last failure, once it is of an engine that was given a flag which it does not know."""
    failure = services.status(name).get("lastFailure") or {}
    return failure if failure.get("reason") == ExitCode.USAGE.reason else None


def test_an_engine_that_dies_at_start_leaves_its_last_words(services: Services) -> None:
    """status.lastFailure has the exit code, the reason that it stands for, and what the engine said."""
    services.cluster.apply(service("tiny", services.namespace, engine={"extraArgs": ["--no-such-flag"]}))
    failure = services.cluster.eventually(lambda: failed(services, "tiny"), "a failure", seconds=120)
    assert failure["exitCode"] == ExitCode.USAGE
    assert "--no-such-flag" in failure["message"]
    assert failure["pod"] in [pod["metadata"]["name"] for pod in services.pods("tiny")]
    assert services.condition("tiny", "Ready")["status"] == "False"


def test_pods_that_a_quota_does_not_let_be_are_told_of(services: Services) -> None:
    """There is no pod that could tell: the condition has the API server's words, until the quota lets them be."""
    place = ("-n", services.namespace)
    services.cluster.kubectl("create", "quota", "none", "--hard=pods=0", *place)
    services.cluster.apply(service("tiny", services.namespace))
    for kind in ("WorkloadReady", "Ready"):
        services.told("tiny", kind, "PodsRefused", "exceeded quota: none")
    services.cluster.kubectl("delete", "quota", "none", *place)
    services.wait_ready("tiny")


def test_a_model_that_does_not_exist_is_said_so(services: Services) -> None:
    """No pod is made for a model that the hub does not know."""
    services.cluster.apply(service("absent", services.namespace, uri="hf://tests/absent"))
    services.told("absent", "Planned", "ModelUnreadable", "hf://tests/absent does not exist")
    assert services.pods("absent") == []


@pytest.fixture
def small_gpu(services: Services) -> Iterator[Machine]:
    services.cluster.add_node(SMALL)
    yield SMALL
    services.cluster.remove_node(SMALL.name)


def test_a_model_that_fits_no_node_gets_its_arithmetic(services: Services, small_gpu: Machine) -> None:
    """Planned=False with the numbers, and no pod that would crash in a loop."""
    engine = {"gpuMemoryUtilization": 0.05}
    services.cluster.apply(
        service("big", services.namespace, accelerator="gpu", engine=engine, nodeSelector=on(small_gpu))
    )
    services.told("big", "Planned", "DoesNotFit")
    rejected = "\n".join(services.status("big")["rejected"])
    assert "T400" in rejected
    assert "MiB" in rejected or "GiB" in rejected, f"the arithmetic is there to be checked: {rejected}"
    assert services.pods("big") == []


@pytest.fixture
def drained(services: Services) -> Iterator[Machine]:
    services.cluster.add_node(DRAINED)
    yield DRAINED
    services.cluster.remove_node(DRAINED.name)


def test_a_drain_is_never_blocked(services: Services, drained: Machine) -> None:
    """One node holds a healthy single replica and two that never become ready: `kubectl drain` empties it."""
    cluster, place = services.cluster, ("-n", services.namespace)
    broken = {"extraArgs": ["--no-such-flag"]}
    cluster.apply(
        service("healthy", services.namespace, nodeSelector=on(drained)),
        service("broken", services.namespace, replicas=2, engine=broken, nodeSelector=on(drained)),
    )
    services.wait_ready("healthy")
    cluster.eventually(lambda: failed(services, "broken"), "the broken one has failed")
    budgets = cluster.objects("poddisruptionbudgets", *place)
    assert {b["spec"]["unhealthyPodEvictionPolicy"] for b in budgets} == {"AlwaysAllow"}
    cluster.kubectl(
        "drain", drained.name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s", seconds=120
    )
    assert [p for p in cluster.objects("pods", *place) if p["spec"].get("nodeName") == drained.name] == []
