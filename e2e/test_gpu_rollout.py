"""Roll-outs where GPUs are scarce: replaced one by one, or waited for, and said; what serves goes on serving."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.api import Object
from e2e.load import Load
from e2e.nodes import L4, Machine
from e2e.services import KIND, Services, service

TWO_GPUS = Machine("gpu-scarce", gpu=L4, gpus=2)
FEWEST_REQUESTS = 10


@pytest.fixture
def gpu_node(services: Services) -> Iterator[Machine]:
    services.cluster.add_node(TWO_GPUS)
    yield TWO_GPUS
    services.cluster.remove_node(TWO_GPUS.name)


def on_gpus(name: str, services: Services, replicas: int) -> Object:
    """On GPUs for the planner and the scheduler, on the CPU that is there for the engine."""
    engine = {"extraArgs": ["--device=cpu"], "maxModelLen": 512}
    return service(name, services.namespace, replicas=replicas, accelerator="gpu", engine=engine)


def tenant(services: Services) -> Object:
    """Somebody's pod that holds a GPU and does nothing with it."""
    container = {
        "name": "idle",
        "image": "python",
        "command": ["sleep", "600"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod_security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tenant", "namespace": services.namespace},
        "spec": {"containers": [container], "securityContext": pod_security, "terminationGracePeriodSeconds": 1},
    }


def edit(services: Services, name: str, spec: str) -> None:
    services.cluster.kubectl("patch", KIND, name, "-n", services.namespace, "--type=merge", "-p", f'{{"spec": {spec}}}')


def uids(services: Services, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in services.pods(name)}


@pytest.mark.usefixtures("gpu_node")
def test_where_every_gpu_is_taken_replicas_are_replaced_one_by_one(services: Services) -> None:
    """Two replicas on two GPUs, under load: it is said, no request fails, and the roll-out ends."""
    services.cluster.apply(on_gpus("tiny", services, replicas=2))
    services.wait_ready("tiny", 2)
    before = uids(services, "tiny")
    with (
        services.cluster.proxy(services.namespace, "tiny") as url,
        Load(url, services.status("tiny")["model"], clients=1) as load,
    ):
        services.cluster.eventually(lambda: len(load.done) >= FEWEST_REQUESTS, "the load flows")
        edit(services, "tiny", '{"engine": {"maxModelLen": 640}}')

        def told() -> bool:
            return (
                "one by one, since no NVIDIA-L4 GPU is free" in services.condition("tiny", "WorkloadReady")["message"]
            )

        services.cluster.eventually(told, "the condition says how and why")
        services.wait_ready("tiny", 2, seconds=300)
    assert not before & uids(services, "tiny"), "every pod is of the new spec"
    assert load.failures == [], f"{len(load.done)} requests ended well"
    strategy = services.cluster.get("deployment", "tiny", "-n", services.namespace)["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, "the next one begins anew"


@pytest.mark.usefixtures("gpu_node")
def test_a_single_replica_waits_for_a_gpu_and_goes_on_serving(services: Services) -> None:
    """The other GPU is another tenant's: RolloutBlocked, until it is freed; then the change comes by itself."""
    cluster = services.cluster
    cluster.apply(on_gpus("tiny", services, replicas=1), tenant(services))
    services.wait_ready("tiny")
    (before,) = uids(services, "tiny")
    edit(services, "tiny", '{"engine": {"maxModelLen": 640}}')
    # Other tenants' GPUs are counted twice a minute.
    message = services.told("tiny", "Ready", "RolloutBlocked", seconds=120)["message"]
    assert "spec.rollout.allowDowntime" in message
    assert "1 replica of the former spec still answers" in message
    assert before in uids(services, "tiny")
    cluster.kubectl("delete", "pod", "tenant", "-n", services.namespace)
    services.wait_ready("tiny", seconds=180)
    assert before not in uids(services, "tiny")
