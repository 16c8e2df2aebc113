"""GPUs that pods of others hold are counted, where they are, and nothing else is."""

import asyncio

import pytest

from pagoda_operator.cluster.errors import Forbidden
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, NODE, POD
from pagoda_operator.controller.ownership import MANAGED_BY, ServiceKey
from pagoda_operator.controller.store import Store
from pagoda_operator.controller.tenants import Tenants


def node(name, gpus):
    allocatable = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"allocatable": allocatable}}


def pod(name, node_name, gpus, *, labels=None, phase="Running", before=0):
    def container(amount):
        return {"name": "c", "resources": {"limits": {"nvidia.com/gpu": str(amount)}} if amount else {}}

    spec = {"nodeName": node_name, "containers": [container(gpus)], "initContainers": [container(before)]}
    metadata = {"name": name, "namespace": "team", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": phase}}


def ignored(_keys):
    """Nobody waits here."""


@pytest.fixture
def scene(virtual, recording):
    """Counts what these nodes and pods make: the numbers, and what was read for them."""

    def count(nodes, pods, own=None, namespaces=(), services=1):
        async def scenario():
            cluster, store = recording(MemoryCluster()), Store()
            for one in nodes:
                written = await cluster.cluster.create(NODE, one)
                store.put(NODE, written | {"status": one["status"]})
            for one in pods:
                written = await cluster.cluster.create(POD, one)
                await cluster.cluster.apply_status(POD, written | {"status": one["status"]})
            for number in range(services):
                metadata = {"name": f"s{number}", "namespace": "default", "uid": f"u{number}", "resourceVersion": "1"}
                store.put(INFERENCE_SERVICE, {"metadata": metadata})
            tenants = Tenants(cluster, store, ignored, namespaces)
            await tenants.look()
            return tenants.beside(own or {}), len(cluster.reads)

        return virtual(scenario())

    return count


def test_foreign_pods_are_counted_by_node_and_added_to_our_own(scene):
    pods = [pod("a", "n1", 2), pod("b", "n1", 1), pod("c", "n2", 4)]
    held, reads = scene([node("n1", 8), node("n2", 8), node("cpu", 0)], pods, own={"n1": 3})
    assert held == {"n1": 6, "n2": 4}
    assert reads == 2, "a node without GPUs is not asked"


def test_what_is_ours_or_over_is_left_out_and_a_container_that_runs_before_counts(scene):
    pods = [
        pod("ours", "n1", 2, labels=MANAGED_BY),
        pod("over", "n1", 2, phase="Succeeded"),
        pod("x", "n1", 0, before=1),
    ]
    assert scene([node("n1", 8)], pods)[0] == {"n1": 1}


def test_only_namespaces_that_are_served_are_asked(scene):
    assert scene([node("n1", 8)], [pod("a", "n1", 2)], namespaces=("mine", "team"))[0] == {"n1": 2}
    assert scene([node("n1", 8)], [pod("a", "n1", 2)], namespaces=("mine",))[0] == {}


def test_they_are_known_before_the_first_service_comes(scene):
    """Where a service is planned first, it stays."""
    held, _ = scene([node("n1", 8)], [pod("a", "n1", 2)], services=0)
    assert held == {"n1": 2}


def test_a_cluster_that_refuses_is_asked_again_and_the_last_numbers_stay(virtual):
    class Moody(MemoryCluster):
        refuses = False

        async def list(self, resource, namespace=None, **selection):
            if self.refuses:
                raise Forbidden("pods is forbidden", status=403)
            return await super().list(resource, namespace, **selection)

    async def scenario():
        cluster, store = Moody(), Store()
        store.put(NODE, await cluster.create(NODE, node("n1", 8)) | {"status": node("n1", 8)["status"]})
        metadata = {"name": "s", "namespace": "default", "uid": "u", "resourceVersion": "1"}
        store.put(INFERENCE_SERVICE, {"metadata": metadata})
        await cluster.create(POD, pod("a", "n1", 2))
        tenants = Tenants(cluster, store, ignored)
        running = asyncio.create_task(tenants.run())
        await asyncio.sleep(40)
        cluster.refuses = True
        await asyncio.sleep(60)
        assert tenants.beside({}) == {"n1": 2}
        cluster.refuses = False
        await cluster.create(POD, pod("b", "n1", 1))
        await asyncio.sleep(40)
        assert tenants.beside({}) == {"n1": 3}
        running.cancel()
        await asyncio.wait([running])

    virtual(scenario())


def test_services_that_may_have_waited_are_looked_at_when_the_numbers_change(virtual):
    async def scenario():
        cluster, store, told = MemoryCluster(), Store(), []
        store.put(NODE, await cluster.create(NODE, node("n1", 8)) | {"status": node("n1", 8)["status"]})
        for name, truth in (("rolls", "False"), ("serves", "True")):
            metadata = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}
            status = {"conditions": [{"type": "WorkloadReady", "status": truth}]}
            store.put(INFERENCE_SERVICE, {"metadata": metadata, "status": status})
        tenants = Tenants(cluster, store, told.append)
        await tenants.look()
        assert told == [], "nothing is held, as before"
        await cluster.create(POD, pod("a", "n1", 2))
        for _ in range(2):
            await tenants.look()
        assert told == [[ServiceKey("default", "rolls")]], "once"

    virtual(scenario())
