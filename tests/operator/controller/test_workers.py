"""What fails is tried again, at its own pace, and holds up nothing else; over an in-memory cluster, in virtual time."""

import asyncio

from tests.operator.controller.qwen import CHILDREN, names, qwen, running

from pagoda_operator.cluster.errors import Conflict, Forbidden, Unavailable
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, EVENT, HORIZONTAL_POD_AUTOSCALER, INFERENCE_SERVICE
from pagoda_operator.controller.store import condition


def test_a_refusal_is_told_in_the_servers_words_and_tried_again_slowly(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        cluster.refuse["apply", "Deployment"] = Forbidden("exceeded quota: gpus, requested: 1, used: 8", status=403)
        async with running(cluster):
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            assert "exceeded quota: gpus" in condition(service, "Ready")["message"]
            cluster.take_writes()
            await asyncio.sleep(600)
            tries = cluster.take_writes()
            assert set(tries) == {("apply", "Deployment", "qwen")}
            assert 10 <= len(tries) <= 16
            cluster.refuse.clear()
            await asyncio.sleep(120)
            assert (DEPLOYMENT, "qwen") in await names(world)

    virtual(scenario())


def test_a_status_that_may_not_be_written_is_told_by_an_event(virtual, recording):
    """Once, although it is tried again and again; the status can't say it itself."""

    async def scenario():
        cluster = recording(MemoryCluster())
        cluster.refuse["status", "InferenceService"] = Forbidden("cannot patch inferenceservices/status", status=403)
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        async with running(cluster):
            await asyncio.sleep(3600)
            told = [(event["reason"], event["message"]) for event in await cluster.list(EVENT)]
            assert told == [("StatusRefused", "the status is old: cannot patch inferenceservices/status")]

    virtual(scenario())


def test_a_cluster_that_does_not_answer_is_asked_again_with_back_off(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        world = cluster.cluster.acting_as("kubectl")
        cluster.refuse["apply", "ServiceAccount"] = Unavailable("etcd is down", status=503)
        async with running(cluster):
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(600)
            tries = [write for write in cluster.take_writes() if write[0] == "apply"]
            assert set(tries) == {("apply", "ServiceAccount", "qwen")}
            assert 20 <= len(tries) <= 30, "0.5 s, 1 s, 2 s, ... up to half a minute"
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            said = "; ServiceAccount qwen can't be changed now, and is tried again: etcd is down"
            assert said in condition(service, "WorkloadReady")["message"], "the status is written all the same"
            cluster.refuse.clear()
            await asyncio.sleep(35)
            assert await names(world) == CHILDREN

    virtual(scenario())


def test_a_bug_met_by_one_service_does_not_stop_the_others(virtual, recording, caplog):
    from pagoda_operator.core.plan import plan

    def planner(service, facts, settings):
        if service["metadata"]["name"] == "bad":
            raise KeyError("a bug")
        return plan(service, facts, settings)

    async def scenario():
        cluster = recording(MemoryCluster())
        async with running(cluster, planner=planner):
            await cluster.cluster.create(INFERENCE_SERVICE, qwen("bad"))
            await cluster.cluster.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(30)
            assert await names(cluster.cluster) == CHILDREN

    virtual(scenario())
    assert "KeyError: 'a bug'" in caplog.text


class Losing(MemoryCluster):
    """A cluster that loses races with itself: some calls do nothing and are answered by 409."""

    losses = None

    async def apply_status(self, resource, obj):
        self._lose("status")
        return await super().apply_status(resource, obj)

    async def delete(self, resource, namespace, name, *, uid, **options):
        self._lose("delete")
        await super().delete(resource, namespace, name, uid=uid, **options)

    def _lose(self, verb):
        if self.losses[verb]:
            self.losses[verb] -= 1
            raise Conflict("the object has been modified; please apply your changes to the latest version")


def test_a_race_that_the_server_lost_is_run_again(virtual):
    """A 409 does not mean that the object is gone: no status stays unwritten, and no child becomes an orphan."""

    async def scenario():
        cluster = Losing()
        cluster.losses = {"status": 3, "delete": 3}
        service = await cluster.create(INFERENCE_SERVICE, qwen(autoscaling={"maxReplicas": 2}))
        async with running(cluster):
            await asyncio.sleep(60)
            told = await cluster.get(INFERENCE_SERVICE, "default", "qwen")
            assert condition(told, "Planned")["status"] == "True"
            assert await cluster.list(HORIZONTAL_POD_AUTOSCALER)
            service = told | {"spec": {k: v for k, v in told["spec"].items() if k != "autoscaling"}}
            await cluster.acting_as("user").replace(INFERENCE_SERVICE, service)
            await asyncio.sleep(60)
            assert cluster.losses == {"status": 0, "delete": 0}
            assert await cluster.list(HORIZONTAL_POD_AUTOSCALER) == []

    virtual(scenario())


def test_a_reconcile_that_hangs_is_given_up_and_tried_again(virtual):
    class Hanging(MemoryCluster):
        hangs = 1

        async def apply(self, resource, obj, *, force):
            if self.hangs:
                self.hangs -= 1
                await asyncio.Event().wait()
            return await super().apply(resource, obj, force=force)

    async def scenario():
        cluster = Hanging()
        await cluster.create(INFERENCE_SERVICE, qwen())
        async with running(cluster) as controller:
            await asyncio.sleep(60)
            assert await names(cluster) == []
            assert controller.stuck() is None, "that may yet be the API server's doing"
            await asyncio.sleep(90)
            assert await names(cluster) == CHILDREN

    virtual(scenario())
