"""What the controller sees of a cluster whose watches are deaf or end, whose kinds come and go, and whose role lacks
a verb; over an in-memory cluster, in virtual time."""

import asyncio
import contextlib
import itertools
import time

import pytest
from tests.operator.controller.qwen import CHILDREN, fetch, inspect, names, qwen, running

from pagoda_operator.cluster.errors import Forbidden
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, INFERENCE_SERVICE, POD, SCALED_OBJECT, SERVICE
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource, WatchFailed
from pagoda_operator.controller.store import condition
from pagoda_operator.core.settings import Settings


class Deaf:
    """A watch that tells what there was and then nothing, as kopf's may after a broken connection."""

    def __init__(self, cluster, deaf_after):
        self.cluster, self.deaf_after = cluster, deaf_after

    async def watch(self, resource, namespace=None, *, labels=None):
        async for event in self.cluster.watch(resource, namespace, labels=labels):
            if asyncio.get_running_loop().time() < self.deaf_after:
                yield event


def test_own_writes_are_known_without_an_echo(virtual, recording):
    """With a watch that tells nothing of our writes, nothing is written twice."""

    async def scenario():
        cluster = recording(MemoryCluster())
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        async with running(cluster, watched=Deaf(cluster.cluster, 0.5)):
            await asyncio.sleep(200)
            writes = [write for write in cluster.take_writes() if write[0] in ("apply", "force")]
            assert writes == [("apply", r.kind, n) for r, n in CHILDREN]

    virtual(scenario())


def test_a_replica_that_answers_is_told_at_once_and_other_news_together(virtual):
    async def scenario():
        cluster = MemoryCluster()
        await cluster.create(INFERENCE_SERVICE, qwen())
        controllers = cluster.acting_as("kube-controller-manager")

        async def tell(**status):
            deployment = await cluster.get(DEPLOYMENT, "default", "qwen")
            kind = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "qwen", "namespace": "default"}}
            status["observedGeneration"] = deployment["metadata"]["generation"]
            await controllers.apply_status(DEPLOYMENT, kind | {"status": status})
            await asyncio.sleep(0.3)
            service = await cluster.get(INFERENCE_SERVICE, "default", "qwen")
            return service["status"].get("readyReplicas", 0), condition(service, "Ready")["status"]

        async with running(cluster):
            await asyncio.sleep(30)
            assert await tell(replicas=1, updatedReplicas=1) == (0, "False")
            ready = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
            assert await tell(**ready) == (1, "True"), "although it has just been looked at"
            assert await tell(**ready | {"readyReplicas": 0}) == (0, "False")

    virtual(scenario())


def test_a_deletion_that_no_watch_told_of_is_found_by_the_sweep(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        async with running(cluster, watched=Deaf(cluster.cluster, 10)):
            await asyncio.sleep(20)
            old = await cluster.cluster.get(SERVICE, "default", "qwen")
            await cluster.cluster.delete(SERVICE, "default", "qwen", uid=old["metadata"]["uid"])
            cluster.take_writes()
            await asyncio.sleep(310)
            assert cluster.take_writes() == [("apply", "Service", "qwen")]

    virtual(scenario())


@pytest.mark.parametrize(("spent", "sweeps"), [(0.0, 12), (2.0, 4), (1e6, 2)])
def test_sweeps_that_cost_much_come_seldom(virtual, recording, monkeypatch, spent, sweeps):
    """In an hour; a thousand services take two seconds of a processor."""
    clock = itertools.count(step=spent)
    monkeypatch.setattr(time, "process_time", lambda: next(clock))

    async def scenario():
        cluster = recording(MemoryCluster())
        async with running(cluster):
            await asyncio.sleep(60)
            cluster.reads.clear()
            await asyncio.sleep(3600)
            assert cluster.reads.count(("list", "Deployment", "")) == pytest.approx(sweeps, abs=1)

    virtual(scenario())


def test_a_silent_watch_ends_the_controller(virtual, recording):
    """The process is started again by its Deployment; nothing else is known to help."""

    async def scenario():
        cluster = recording(MemoryCluster())
        controller = Controller(
            cluster, StreamSource(Deaf(cluster.cluster, 10)), Settings(), inspect=inspect, fetch=fetch
        )
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(20)
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        await asyncio.wait([task])
        assert "inferenceservices.pagoda.dev has not told of 1 changes, e.g. qwen" in str(task.exception())

    virtual(scenario())


class Source(StreamSource):
    """A watch layer that fails, as kopf does, when a kind that it watches is no longer served."""

    def __init__(self, cluster):
        super().__init__(cluster)
        self.cluster, self.runs = cluster, []

    async def run(self, resources, sink, listed):
        self.runs.append([resource.kind for resource in resources])
        await asyncio.sleep(5)
        feeding = asyncio.create_task(super().run(resources, sink, listed))
        try:
            while True:
                await asyncio.sleep(1)
                if not all([await self.cluster.served(resource) for resource in resources]):
                    raise RuntimeError("404")
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])


class Changing(MemoryCluster):
    """A cluster in which KEDA comes and goes."""

    keda = False

    async def served(self, resource):
        return self.keda if resource == SCALED_OBJECT else await super().served(resource)


def test_optional_kinds_may_come_and_go(virtual):
    """The watch is opened anew for them, and what was deleted between two watches is found."""

    async def scenario():
        cluster = Changing(optional=frozenset({SCALED_OBJECT}))
        source = Source(cluster)
        controller = Controller(cluster, source, Settings(), inspect=inspect, fetch=fetch)
        task = asyncio.create_task(controller.run())
        created = await cluster.create(INFERENCE_SERVICE, qwen())
        await asyncio.sleep(100)
        cluster.keda = True
        await asyncio.sleep(100)
        cluster.keda = False
        await asyncio.sleep(2)  # the first watch has failed, and the second does not listen yet
        await cluster.delete(INFERENCE_SERVICE, "default", "qwen", uid=created["metadata"]["uid"])
        await asyncio.sleep(60)  # sooner than the next sweep that would come anyway
        assert not task.done(), task.exception()
        assert [("ScaledObject" in kinds) for kinds in source.runs] == [False, True, False]
        assert controller.store.services() == frozenset()
        task.cancel()
        await asyncio.wait([task])

    virtual(scenario())


def test_a_watch_layer_that_fails_for_no_reason_ends_the_controller(virtual):
    class Failing:
        async def run(self, resources, sink, listed):
            raise RuntimeError("no more")

    async def scenario():
        with pytest.raises(RuntimeError, match="no more"):
            await Controller(MemoryCluster(), Failing(), Settings(), inspect=inspect, fetch=fetch).run()

    virtual(scenario())


def test_a_watch_layer_that_failed_is_run_anew(virtual):
    """What was deleted in between, of which no watch can tell, is found out soon."""

    class Failing(StreamSource):
        """Ends as kopf does when the API server refuses to be watched for too long."""

        ends = None

        async def run(self, resources, sink, listed):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(super().run(resources, sink, listed), self.ends.pop(0))
            raise WatchFailed("the watch layer ended: 500")

    async def scenario():
        cluster = MemoryCluster()
        source = Failing(cluster)
        source.ends = [10.0, 10.0, 3600.0]
        created = await cluster.create(INFERENCE_SERVICE, qwen())
        controller = Controller(cluster, source, Settings(), inspect=inspect, fetch=fetch)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(10.5)
        await cluster.delete(INFERENCE_SERVICE, "default", "qwen", uid=created["metadata"]["uid"])
        await asyncio.sleep(30)
        assert source.ends == []
        assert controller.store.services() == frozenset()
        await cluster.create(INFERENCE_SERVICE, qwen())
        await asyncio.sleep(30)
        assert await names(cluster) == CHILDREN
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.wait([task])

    virtual(scenario())


class Secretive(MemoryCluster):
    """A cluster whose RBAC does not let the operator list some kinds."""

    hidden = frozenset()

    async def list(self, resource, namespace=None, **selection):
        if resource in self.hidden:
            raise Forbidden(f"{resource} is forbidden: cannot list", status=403)
        return await super().list(resource, namespace, **selection)


@pytest.mark.parametrize("hidden", [DEPLOYMENT, POD], ids=str)
def test_what_may_not_be_read_is_said_and_nothing_is_written_blindly(virtual, recording, hidden):
    """A role that lacks a verb ends in the status of every service; once it has the verb, the work is done."""

    async def scenario():
        world = Secretive()
        world.hidden = frozenset({hidden})
        cluster = recording(world)
        await world.create(INFERENCE_SERVICE, qwen())
        async with running(cluster):
            await asyncio.sleep(60)
            assert {write[0] for write in cluster.take_writes()} == {"status"}
            told = condition(await world.get(INFERENCE_SERVICE, "default", "qwen"), "Ready")
            assert (told["status"], told["reason"]) == ("Unknown", "ClusterUnreadable")
            assert f"{hidden} is forbidden: cannot list" in told["message"]
            await asyncio.sleep(3600)
            assert cluster.take_writes() == [], "it is said once"
            world.hidden = frozenset()
            await asyncio.sleep(60)
            assert await names(world) == CHILDREN
            told = condition(await world.get(INFERENCE_SERVICE, "default", "qwen"), "Ready")
            assert told["reason"] != "ClusterUnreadable"

    virtual(scenario())


def test_a_watch_that_is_forbidden_is_said_until_it_holds_again(virtual):
    class Refused(StreamSource):
        """Ends as kopf does, after half a minute of 403."""

        refused = 3

        async def run(self, resources, sink, listed):
            while self.refused:
                self.refused -= 1
                await asyncio.sleep(20)
                raise WatchFailed("pods is forbidden: cannot watch", status=403)
            await super().run(resources, sink, listed)

    async def scenario():
        cluster = MemoryCluster()
        await cluster.create(INFERENCE_SERVICE, qwen())
        async with running(cluster, source=Refused(cluster)):
            await asyncio.sleep(50)
            told = condition(await cluster.get(INFERENCE_SERVICE, "default", "qwen"), "Ready")
            assert told["reason"] == "ClusterUnreadable"
            assert "pods is forbidden: cannot watch" in told["message"]
            await asyncio.sleep(60)
            assert await names(cluster) == CHILDREN
            told = condition(await cluster.get(INFERENCE_SERVICE, "default", "qwen"), "Ready")
            assert told["reason"] != "ClusterUnreadable"

    virtual(scenario())
