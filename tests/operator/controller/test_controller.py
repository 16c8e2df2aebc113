"""The whole controller over an in-memory cluster, in virtual time: hours pass, and every write is counted."""

import asyncio

import pytest
from tests.operator.controller.qwen import CHILDREN, names, qwen, running

from pagoda_operator.cluster.errors import Forbidden, Invalid, Terminating
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import (
    DEPLOYMENT,
    EVENT,
    INFERENCE_SERVICE,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
)
from pagoda_operator.controller.store import condition
from pagoda_operator.core.facts import ModelUnreadable


async def serve(world):
    """Be the Deployment's controller and a kubelet: make one pod that is ready, and say so."""
    deployment = await world.get(DEPLOYMENT, "default", "qwen")
    template = deployment["spec"]["template"]
    metadata = template["metadata"] | {"name": "qwen-1", "namespace": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] | {"nodeName": "n1"}}
    await world.create(POD, pod)
    ready = {"type": "Ready", "status": "True"}
    status = {"phase": "Running", "podIP": "10.1.2.3", "conditions": [ready]}
    await world.apply_status(POD, pod | {"status": status})
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    seen = {"observedGeneration": deployment["metadata"]["generation"]}
    await world.apply_status(DEPLOYMENT, deployment | {"status": counts | seen})


async def served(world, **spec):
    """Make a service, and let it be served until there is nothing left to tell."""
    await world.create(INFERENCE_SERVICE, qwen(**spec))
    await asyncio.sleep(10)
    await serve(world)
    await asyncio.sleep(60)


async def edit(world, **spec):
    """Change fields of the service's spec, as a user does; None removes one."""
    service = await world.get(INFERENCE_SERVICE, "default", "qwen")
    asked = service["spec"] | spec
    service["spec"] = {field: value for field, value in asked.items() if value is not None}
    await world.replace(INFERENCE_SERVICE, service)
    await asyncio.sleep(60)


def test_a_service_gets_its_children_then_silence(virtual, recording):
    """Every child once, a status, an Event; then three hours, with resyncs and sweeps, without a single write."""

    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubelet")
        async with running(cluster):
            await asyncio.sleep(5)
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(60)
            assert await names(world) == CHILDREN
            writes = cluster.take_writes()
            assert [write for write in writes if write[0] == "apply"] == [("apply", r.kind, n) for r, n in CHILDREN]
            assert not [write for write in writes if write[0] in ("force", "delete", "replace")]
            await serve(world)
            await asyncio.sleep(60)
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            assert condition(service, "Ready")["status"] == "True"
            assert service["status"]["queue"] == {"waiting": 0, "running": 0}
            assert {write[0] for write in cluster.take_writes()} == {"status", "create"}
            await asyncio.sleep(3 * 3600)
            assert cluster.take_writes() == []
            events = [event["reason"] for event in await world.list(EVENT)]
            assert events == ["Ready"]

    virtual(scenario())


def test_an_operator_that_starts_anew_writes_nothing(virtual, recording):
    """Also while it has not read the model again, and when the model can't be read any more."""

    async def unreadable(uri, environment):
        return ModelUnreadable("the hub is down", permanent=False)

    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubelet")
        async with running(cluster):
            await served(world)
        cluster.take_writes()
        async with running(cluster):
            await asyncio.sleep(60)
        async with running(cluster, inspect=unreadable):
            await asyncio.sleep(3600)
        assert cluster.take_writes() == []

    virtual(scenario())


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {"maxNumSeqs": 8}), ({"env": [{"name": "A", "value": "1"}]}, {})],
    ids=["something more", "something less"],
)
def test_an_edit_ends_readiness_as_it_replaces_pods(virtual, recording, before, after):
    """With the first status, and for as long as the Deployment's controller has not seen it; also for another
    operator, which knows nothing of the edit."""

    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubelet")

        async def ready():
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            return condition(service, "Ready")["status"], service["status"]["observedGeneration"]

        async with running(cluster):
            await served(world, engine=before)
            assert await ready() == ("True", 1)
            cluster.take_writes()
            await edit(world, engine=after)
            writes = [write for write in cluster.take_writes() if write[1] in ("InferenceService", "Deployment")]
            assert writes == [("force", "Deployment", "qwen"), ("status", "InferenceService", "qwen")]
            assert await ready() == ("False", 2)
        async with running(cluster):
            await asyncio.sleep(3600)
            assert cluster.take_writes() == []
            assert await ready() == ("False", 2)

    virtual(scenario())


def test_a_child_that_may_not_be_deleted_does_not_silence_the_status(virtual, recording):
    """It says what can't be done, and goes on saying how the service is."""

    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubelet")
        async with running(cluster):
            await served(world, autoscaling={"maxReplicas": 3})
            cluster.refuse["delete", "HorizontalPodAutoscaler"] = Forbidden("a policy keeps it")
            await edit(world, autoscaling=None)
            told = await world.get(INFERENCE_SERVICE, "default", "qwen")
            assert told["status"]["observedGeneration"] == 2
            assert condition(told, "Ready")["status"] == "True"
            assert "HorizontalPodAutoscaler qwen can't be changed now" in condition(told, "WorkloadReady")["message"]
            cluster.refuse.clear()
            await asyncio.sleep(600)
            assert await names(world) == CHILDREN
            assert condition(await world.get(INFERENCE_SERVICE, "default", "qwen"), "Ready")["status"] == "True"

    virtual(scenario())


def test_drift_is_repaired_with_one_write_each(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        async with running(cluster):
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            cluster.take_writes()
            old = await world.get(SERVICE, "default", "qwen")
            await world.delete(SERVICE, "default", "qwen", uid=old["metadata"]["uid"])
            edited = await world.get(DEPLOYMENT, "default", "qwen")
            edited["spec"]["replicas"] = 7
            await world.replace(DEPLOYMENT, edited)
            unlabelled = await world.get(SERVICE_ACCOUNT, "default", "qwen")
            del unlabelled["metadata"]["labels"]
            await world.replace(SERVICE_ACCOUNT, unlabelled)
            await asyncio.sleep(60)
            writes = [write for write in cluster.take_writes() if write[0] not in ("status", "create")]
            assert sorted(writes) == [
                ("apply", "Service", "qwen"),
                ("apply", "ServiceAccount", "qwen"),  # without its label it seemed to be gone
                ("force", "Deployment", "qwen"),
                ("force", "ServiceAccount", "qwen"),
            ]
            assert (await world.get(DEPLOYMENT, "default", "qwen"))["spec"]["replicas"] == 1
            assert (await world.get(SERVICE, "default", "qwen"))["metadata"]["uid"] != old["metadata"]["uid"]
            assert (await world.get(SERVICE_ACCOUNT, "default", "qwen"))["metadata"]["labels"]

    virtual(scenario())


def test_a_foreign_object_is_not_touched_and_its_end_is_noticed(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "qwen", "namespace": "default"}}
        foreign["spec"] = {"ports": [{"port": 9090}]}
        before = await world.create(SERVICE, foreign)
        async with running(cluster):
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            ready = condition(service, "Ready")
            assert (ready["status"], ready["reason"]) == ("False", "NameConflict")
            assert "'kubectl'" in ready["message"]
            cluster.take_writes()
            await asyncio.sleep(3600)
            assert cluster.take_writes() == [], "looking again is only reading"
            assert await world.get(SERVICE, "default", "qwen") == before
            await world.delete(SERVICE, "default", "qwen", uid=before["metadata"]["uid"])
            await asyncio.sleep(2)
            assert ("apply", "Service", "qwen") in cluster.take_writes(), "at once, although no watch tells of it"
            await asyncio.sleep(3)
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            assert condition(service, "Ready")["reason"] != "NameConflict"

    virtual(scenario())


def test_a_namespace_that_goes_is_left_in_peace(virtual, recording, caplog):
    """Its children go before the service does: one write is refused, and neither a warning nor an Event follows."""

    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        async with running(cluster):
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            cluster.refuse["apply", "Service"] = Terminating("being terminated", status=403)
            service = await world.get(SERVICE, "default", "qwen")
            cluster.take_writes()
            await world.delete(SERVICE, "default", "qwen", uid=service["metadata"]["uid"])
            await asyncio.sleep(60)
            assert set(cluster.take_writes()) == {("apply", "Service", "qwen")}
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []

    virtual(scenario())


class Opinionated:
    """A cluster whose admission always wants five replicas."""

    def __init__(self, cluster):
        self.cluster = cluster

    def __getattr__(self, name):
        return getattr(self.cluster, name)

    async def apply(self, resource, obj, *, force):
        if resource == DEPLOYMENT:
            obj = obj | {"spec": obj["spec"] | {"replicas": 5}}
        return await self.cluster.apply(resource, obj, force=force)


def test_a_server_that_wants_it_otherwise_is_not_fought(virtual, recording):
    """One write says what we want; if the answer is another object, saying it again is only noise."""

    async def scenario():
        cluster = recording(Opinionated(MemoryCluster()))
        async with running(cluster):
            await cluster.cluster.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(3600)
            writes = [write for write in cluster.take_writes() if write[1] == "Deployment"]
            assert writes == [("apply", "Deployment", "qwen")]
            # Somebody else's edit is drift like any other, and is answered once.
            edited = await cluster.cluster.get(DEPLOYMENT, "default", "qwen")
            edited["spec"]["replicas"] = 7
            await cluster.cluster.replace(DEPLOYMENT, edited)
            await asyncio.sleep(3600)
            assert cluster.take_writes().count(("force", "Deployment", "qwen")) == 1

    virtual(scenario())


def test_a_service_that_is_deleted_is_left_to_the_garbage_collector(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        async with running(cluster) as controller:
            created = await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            cluster.take_writes()
            await world.delete(INFERENCE_SERVICE, "default", "qwen", uid=created["metadata"]["uid"])
            await asyncio.sleep(60)
            assert await names(world) == []
            assert cluster.take_writes() == []
            assert controller.store.services() == frozenset()

    virtual(scenario())


def test_a_successor_of_the_same_name_gets_children_of_its_own(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        async with running(cluster):
            first = await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            await world.delete(INFERENCE_SERVICE, "default", "qwen", uid=first["metadata"]["uid"])
            second = await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(60)
            assert await names(world) == CHILDREN
            for resource, name in CHILDREN:
                owner = (await world.get(resource, "default", name))["metadata"]["ownerReferences"][0]
                assert owner["uid"] == second["metadata"]["uid"]

    virtual(scenario())


def test_a_budget_that_cant_be_mended_is_made_anew(virtual):
    """Somebody's `minAvailable` excludes our `maxUnavailable`, and an apply can't take it away."""

    class Exclusive(MemoryCluster):
        async def apply(self, resource, obj, *, force):
            if resource == POD_DISRUPTION_BUDGET:
                live = [b for b in await self.list(resource) if "minAvailable" in b["spec"]]
                if live:
                    raise Invalid("minAvailable and maxUnavailable cannot be both set", status=422)
            return await super().apply(resource, obj, force=force)

    async def scenario():
        cluster = Exclusive()
        await cluster.create(INFERENCE_SERVICE, qwen())
        async with running(cluster):
            await asyncio.sleep(30)
            (budget,) = await cluster.list(POD_DISRUPTION_BUDGET)
            spec = {k: v for k, v in budget["spec"].items() if k != "maxUnavailable"} | {"minAvailable": 7}
            await cluster.acting_as("user").replace(POD_DISRUPTION_BUDGET, budget | {"spec": spec})
            await asyncio.sleep(10)
            (mended,) = await cluster.list(POD_DISRUPTION_BUDGET)
            assert "minAvailable" not in mended["spec"]
            assert mended["spec"]["maxUnavailable"] == 1
            assert mended["metadata"]["uid"] != budget["metadata"]["uid"]

    virtual(scenario())


@pytest.mark.parametrize("count", [50])
def test_many_services_are_settled_and_silent(virtual, recording, count):
    async def scenario():
        cluster = recording(MemoryCluster())
        for number in range(count):
            await cluster.cluster.create(INFERENCE_SERVICE, qwen(f"s{number}"))
        async with running(cluster):
            await asyncio.sleep(60)
            applied = [write for write in cluster.take_writes() if write[0] == "apply"]
            assert len(applied) == len(set(applied)) == count * len(CHILDREN)
            await asyncio.sleep(900)
            assert cluster.take_writes() == []

    virtual(scenario())
