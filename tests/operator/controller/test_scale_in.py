"""Replicas are given up by the least work, as the pods tell it at that moment; over an in-memory cluster, in virtual
time, with local mode's Deployment controller, which heeds costs as a ReplicaSet does."""

import asyncio
from contextlib import asynccontextmanager

from pagoda_engine.contract import Metric, ModelFacts
from pagoda_operator.cluster.errors import Forbidden
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, EVENT, INFERENCE_SERVICE, POD
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource
from pagoda_operator.core.deletion_cost import ANNOTATION
from pagoda_operator.core.settings import Settings
from pagoda_operator.local.deployments import Deployments

FACTS = ModelFacts("LlamaForCausalLM", "bfloat16", 2 << 20, 1 << 20, 4, 8, 8, 16, 128, 1000, 512)
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
LOADING = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "False"}],
    "containerStatuses": [{"name": "engine", "state": {"running": {}}, "started": False}],
}


async def inspect(uri, environment):
    return FACTS


class Scene:
    """A service whose pods a kubelet runs; `work` is what each tells of the requests that it runs, by pod IP."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.world = cluster.cluster.acting_as("kubelet")
        self.work = {}
        self.becomes = READY
        self.pods = {}

    async def fetch(self, url):
        ip = url.split("/")[2].split(":")[0]
        running = self.work.get(ip, 0)
        return 200, f"{Metric.WAITING} 0.0\n{Metric.RUNNING} {running}.0\n".encode()

    async def kubelet(self):
        async for event in self.world.watch(POD):
            pod, name = event.object, event.object["metadata"]["name"]
            if event.change == "DELETED":
                self.pods.pop(name, None)
            elif "deletionTimestamp" in pod["metadata"]:
                await self.world.delete(POD, "default", name, uid=pod["metadata"]["uid"], grace_seconds=0)
            elif name not in self.pods:
                self.pods[name] = f"10.0.0.{len(self.pods) + 1}"
                await self.tell(name, self.becomes)

    async def tell(self, name, status):
        pod = await self.world.get(POD, "default", name)
        await self.world.apply_status(POD, pod | {"status": status | {"podIP": self.pods[name]}})

    async def scale(self, replicas):
        """As a scaler does, through the service's own replicas; gives the writes of the next minute."""
        self.cluster.take_writes()
        service = await self.world.get(INFERENCE_SERVICE, "default", "qwen")
        service["spec"]["replicas"] = replicas
        await self.world.replace(INFERENCE_SERVICE, service)
        await asyncio.sleep(60)
        return self.cluster.take_writes()

    async def scaling(self):
        return (await self.world.get(INFERENCE_SERVICE, "default", "qwen"))["status"]["scaling"]

    async def replicas(self):
        return (await self.world.get(DEPLOYMENT, "default", "qwen"))["spec"]["replicas"]


@asynccontextmanager
async def serving(cluster, replicas, **spec):
    """A service with so many replicas, all of them ready."""
    scene = Scene(cluster)
    model = {"model": {"uri": "hf://org/model"}, "accelerator": "cpu", "replicas": replicas, **spec}
    metadata = {"name": "qwen", "namespace": "default"}
    service = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.kind, "metadata": metadata}
    controller = Controller(cluster, StreamSource(cluster), Settings(), inspect=inspect, fetch=scene.fetch)
    deployments = Deployments(cluster.cluster, node_name="n1")
    tasks = [asyncio.create_task(run) for run in (controller.run(), deployments.run(), scene.kubelet())]
    await scene.world.create(INFERENCE_SERVICE, service | {"spec": model})
    await asyncio.sleep(60)
    assert len(scene.pods) == replicas
    yield scene
    assert not [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_the_replica_with_the_least_work_is_given_up(virtual, recording):
    """Costs are written before the decrease, for it and never again: hours later nothing was written any more."""

    async def scenario():
        async with serving(recording(MemoryCluster()), 3) as scene:
            names = dict(zip(scene.pods, (5, 0, 3), strict=True))
            scene.work = {scene.pods[name]: work for name, work in names.items()}
            # They tell it to who asks now; what is published to the status is older.
            writes = await scene.scale(2)
            idle = next(name for name, work in names.items() if work == 0)
            assert set(scene.pods) == set(names) - {idle}
            kinds = [kind for _, kind, _ in writes]
            assert kinds.count("Pod") == 2, "one that costs nothing needs no note"
            assert max(i for i, kind in enumerate(kinds) if kind == "Pod") < kinds.index("Deployment")
            for name in scene.pods:
                pod = await scene.world.get(POD, "default", name)
                assert pod["metadata"]["annotations"][ANNOTATION] == str(names[name])
            await asyncio.sleep(3 * 3600)
            assert scene.cluster.take_writes() == []

    virtual(scenario())


def test_costs_are_written_for_a_choice_only(virtual, recording):
    """Neither for more replicas nor for none at all."""

    async def scenario():
        async with serving(recording(MemoryCluster()), 2) as scene:
            scene.work = {ip: number + 1 for number, ip in enumerate(scene.pods.values())}
            for replicas in (3, 0):
                assert "Pod" not in {kind for _, kind, _ in await scene.scale(replicas)}
                assert len(scene.pods) == replicas

    virtual(scenario())


def test_a_right_that_lacks_does_not_keep_replicas(virtual, recording, caplog):
    """Any of them then goes, and the log says what is missing."""

    async def scenario():
        async with serving(recording(MemoryCluster()), 2) as scene:
            scene.work = dict.fromkeys(scene.pods.values(), 7)
            scene.cluster.refuse["force", "Pod"] = Forbidden("cannot patch resource pods", status=403)
            await scene.scale(1)
            assert len(scene.pods) == 1
        assert "cannot patch resource pods" in caplog.text

    virtual(scenario())


def test_what_loads_is_kept_through_a_sag(virtual, recording):
    """The decrease comes when the replica is ready, and then takes the one with the least work."""

    async def scenario():
        async with serving(recording(MemoryCluster()), 1, autoscaling={"maxReplicas": 3}) as scene:
            (first,) = scene.pods
            scene.becomes = LOADING
            await scene.scale(2)
            second = next(name for name in scene.pods if name != first)
            await scene.scale(1)
            assert await scene.replicas() == 2
            scaling = await scene.scaling()
            assert scaling["desired"] == 2
            assert scaling["reason"].startswith("HorizontalPodAutoscaler asks for 1; 1 more stay until no replica")
            scene.cluster.take_writes()
            await asyncio.sleep(3600)
            assert scene.cluster.take_writes() == [], "to hold is not to write"
            scene.work = {scene.pods[second]: 4}
            await scene.tell(second, READY)
            await asyncio.sleep(60)
            assert set(scene.pods) == {second}

    virtual(scenario())


def test_decisions_are_logged_and_told_once(virtual, recording):
    """Five in the status, the newest first, each with an Event; an operator that starts anew tells nothing again."""

    async def scenario():
        async with serving(recording(MemoryCluster()), 1) as scene:
            scene.work = dict.fromkeys(scene.pods.values(), 2)
            for replicas in (2, 3, 1, 2, 4, 1):
                await scene.scale(replicas)
            decisions = (await scene.scaling())["lastDecisions"]
            assert [(d["from"], d["to"]) for d in decisions] == [(4, 1), (2, 4), (1, 2), (3, 1), (2, 3)]
            assert decisions[0]["reason"] == "spec.replicas asks for 1; 0 requests waiting, 2 running"
            told = [event for event in await scene.world.list(EVENT) if event["reason"].startswith("Scaled")]
            assert [event["reason"] for event in told].count("ScaledIn") == 2
            assert [event["reason"] for event in told].count("ScaledOut") == 4
            assert f"from 4 to 1 replicas: {decisions[0]['reason']}" in {event["message"] for event in told}
            scene.cluster.take_writes()
            again = Controller(
                scene.cluster, StreamSource(scene.cluster), Settings(), inspect=inspect, fetch=scene.fetch
            )
            task = asyncio.create_task(again.run())
            await asyncio.sleep(600)
            assert scene.cluster.take_writes() == []
            task.cancel()
            await asyncio.wait([task])

    virtual(scenario())
