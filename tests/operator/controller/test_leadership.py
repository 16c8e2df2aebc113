"""Of several controllers the one that leads writes, and no other, however it came to lose its Lease; over an in-memory
cluster, in virtual time."""

import asyncio

from tests.operator.controller.qwen import fetch, inspect, qwen, running

from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, LEASE, SERVICE_ACCOUNT
from pagoda_operator.controller.lease import LeaseElector
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource
from pagoda_operator.core.settings import Settings


def test_of_two_operators_one_writes_and_the_other_takes_over(virtual, recording):
    async def scenario():
        world = MemoryCluster()
        first, second = recording(world), recording(world)

        def elector(cluster, identity):
            return LeaseElector(cluster, "pagoda", "pagoda-operator", identity)

        def others(cluster):
            return [write for write in cluster.take_writes() if write[1] != "Lease"]

        async with running(first, elector=elector(first, "one")):
            await asyncio.sleep(5)
            async with running(second, elector=elector(second, "two")):
                await world.create(INFERENCE_SERVICE, qwen())
                await asyncio.sleep(60)
                assert others(first)
                assert others(second) == []
            assert (await world.get(LEASE, "pagoda", "pagoda-operator"))["spec"]["holderIdentity"] == "one"
        assert (await world.get(LEASE, "pagoda", "pagoda-operator"))["spec"]["holderIdentity"] == ""
        async with running(second, elector=elector(second, "two")):
            await asyncio.sleep(60)
            assert (await world.get(LEASE, "pagoda", "pagoda-operator"))["spec"]["holderIdentity"] == "two"
            assert others(second) == [], "there is nothing left to do"

    virtual(scenario())


def test_an_operator_that_loses_its_lease_stops_at_once(virtual, recording):
    async def scenario():
        cluster = recording(MemoryCluster())
        elector = LeaseElector(cluster, "pagoda", "pagoda-operator", "one")
        controller = Controller(
            cluster, StreamSource(cluster), Settings(), inspect=inspect, fetch=fetch, elector=elector
        )
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        lease = await cluster.cluster.get(LEASE, "pagoda", "pagoda-operator")
        lease["spec"]["holderIdentity"] = "thief"
        await cluster.cluster.replace(LEASE, lease)
        await asyncio.wait([task])
        assert "lost" in str(task.exception())
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        cluster.take_writes()
        await asyncio.sleep(60)
        assert cluster.take_writes() == []

    virtual(scenario())


def test_an_operator_that_slept_past_its_lease_writes_nothing(virtual, recording):
    """Stopped by SIGSTOP it wakes with keys in its queue, while somebody else may lead already."""

    async def scenario():
        cluster = recording(MemoryCluster())
        elector = LeaseElector(cluster, "pagoda", "pagoda-operator", "one")
        controller = Controller(
            cluster, StreamSource(cluster), Settings(), inspect=inspect, fetch=fetch, elector=elector
        )
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        elector.leads = lambda: False  # its clock has moved on
        cluster.take_writes()
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        await asyncio.wait([task])
        assert "ran out" in str(task.exception())
        assert [write for write in cluster.take_writes() if write[1] != "Lease"] == []

    virtual(scenario())


def test_an_operator_that_slept_in_the_middle_of_its_work_leaves_the_rest(virtual, recording):
    """The first child is written, the next one is not."""

    class Sleeping(MemoryCluster):
        async def apply(self, resource, obj, *, force):
            written = await super().apply(resource, obj, force=force)
            if resource is SERVICE_ACCOUNT:
                elector.leads = lambda: False  # its clock has moved on
            return written

    cluster = recording(Sleeping())
    elector = LeaseElector(cluster, "pagoda", "pagoda-operator", "one")

    async def scenario():
        controller = Controller(
            cluster, StreamSource(cluster), Settings(), inspect=inspect, fetch=fetch, elector=elector
        )
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        await cluster.cluster.create(INFERENCE_SERVICE, qwen())
        await asyncio.wait([task])
        assert "ran out in the middle of work" in str(task.exception())
        assert [kind for _, kind, _ in cluster.take_writes() if kind not in ("Lease", "InferenceService")] == [
            "ServiceAccount"
        ]

    virtual(scenario())
