"""Leader election: never two leaders, no wait after a clean exit, a bounded wait after a crash."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagoda_operator.cluster.errors import Unavailable
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import LEASE
from pagoda_operator.controller.lease import LeaseElector, LeaseTimes

TIMES = LeaseTimes()


def elector(cluster, identity):
    return LeaseElector(cluster, "pagoda", "pagoda-operator", identity)


async def lead(cluster, identity, reign, clean=True):
    """Wait to lead, note the reign, and end it when it is lost or cancelled."""
    mine = elector(cluster, identity)
    await mine.acquire()
    reign.append(identity)
    try:
        await mine.hold()
    finally:
        reign.remove(identity)
        if clean:
            await mine.release()


def test_after_a_clean_exit_the_next_one_leads_at_once(virtual):
    async def scenario():
        cluster, loop = MemoryCluster(), asyncio.get_running_loop()
        first, second = elector(cluster, "one"), elector(cluster, "two")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(60)
        assert not waiting.done() or await holder(cluster) == "two"
        await first.release()
        released = loop.time()
        await waiting
        assert loop.time() - released < 2.2 * TIMES.retry_period + 1
        assert await holder(cluster) == "two"

    async def holder(cluster):
        return (await cluster.get(LEASE, "pagoda", "pagoda-operator"))["spec"]["holderIdentity"]

    virtual(scenario())


def test_after_a_crash_the_next_one_leads_when_the_lease_has_not_changed_for_its_duration(virtual):
    async def scenario():
        cluster, loop = MemoryCluster(), asyncio.get_running_loop()
        await elector(cluster, "one").acquire()
        crashed = loop.time()
        await elector(cluster, "two").acquire()
        assert TIMES.duration <= loop.time() - crashed <= TIMES.duration + 2.2 * TIMES.retry_period
        lease = await cluster.get(LEASE, "pagoda", "pagoda-operator")
        assert lease["spec"]["leaseTransitions"] == 1

    virtual(scenario())


def test_a_leader_that_renews_is_left_alone_for_hours(virtual):
    async def scenario():
        cluster, reign = MemoryCluster(), []
        tasks = [asyncio.create_task(lead(cluster, name, reign)) for name in ("one", "two")]
        await asyncio.sleep(1)
        assert reign == ["one"]
        await asyncio.sleep(4 * 3600)
        assert reign == ["one"]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    virtual(scenario())


class Flaky:
    """A cluster that answers one operator only at times."""

    def __init__(self, cluster, outages):
        self.cluster, self.outages = cluster, outages

    def __getattr__(self, name):
        method = getattr(self.cluster, name)

        async def call(*args, **kwargs):
            now = asyncio.get_running_loop().time()
            for start, length, hangs in self.outages:
                if start <= now < start + length:
                    await asyncio.sleep(start + length - now if hangs else 0)
                    raise Unavailable("connection refused")
            return await method(*args, **kwargs)

        return call


OUTAGES = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0.1, 40), st.booleans()).map(lambda outage: tuple(outage)), max_size=6
)


@given(first=OUTAGES, second=OUTAGES)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_there_are_never_two_leaders_whatever_the_network_does(virtual, first, second):
    """And once the network is well again there is one."""

    async def scenario():
        cluster, reign = MemoryCluster(), []

        async def stand(name, outages):
            while True:
                await lead(Flaky(cluster, outages), name, reign)

        tasks = [asyncio.create_task(stand("one", first)), asyncio.create_task(stand("two", second))]
        for _ in range(1000):
            await asyncio.sleep(0.5)
            assert len(reign) <= 1, reign
        assert len(reign) == 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    virtual(scenario())


def test_a_leader_gives_up_before_its_lease_can_be_taken(virtual):
    """Cut off for good, it stops within the renew deadline, which is shorter than the lease's duration."""

    async def scenario():
        cluster, loop = MemoryCluster(), asyncio.get_running_loop()
        leader = elector(Flaky(cluster, [(20, 1e6, True)]), "one")
        await leader.acquire()
        await leader.hold()
        assert loop.time() - 20 <= TIMES.renew_deadline

    virtual(scenario())


@pytest.mark.parametrize("written", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_the_clock_of_the_holder_does_not_matter(virtual, written):
    """A Lease stands for its duration after it was last seen to change, whatever time it says."""

    async def scenario():
        cluster, loop = MemoryCluster(), asyncio.get_running_loop()
        await elector(cluster, "one").acquire()
        lease = await cluster.get(LEASE, "pagoda", "pagoda-operator")
        lease["spec"] |= {"renewTime": written, "acquireTime": written}
        await cluster.replace(LEASE, lease)
        crashed = loop.time()
        await elector(cluster, "two").acquire()
        assert TIMES.duration <= loop.time() - crashed <= TIMES.duration + 2.2 * TIMES.retry_period

    virtual(scenario())


def test_a_leader_knows_by_itself_when_others_may_lead(virtual):
    async def scenario():
        cluster = MemoryCluster()
        leader = elector(Flaky(cluster, [(20, 1e6, True)]), "one")
        assert not leader.leads()
        await leader.acquire()
        assert leader.leads()
        await leader.hold()
        assert not leader.leads()

    virtual(scenario())


def test_what_others_wrote_into_the_lease_is_kept(virtual):
    async def scenario():
        cluster = MemoryCluster()
        first = elector(cluster, "one")
        await first.acquire()
        lease = await cluster.get(LEASE, "pagoda", "pagoda-operator")
        lease["metadata"]["labels"] = {"team": "inference"}
        await cluster.replace(LEASE, lease)
        holding = asyncio.create_task(first.hold())
        await asyncio.sleep(30)
        lease = await cluster.get(LEASE, "pagoda", "pagoda-operator")
        assert lease["metadata"]["labels"] == {"team": "inference"}
        assert lease["spec"]["holderIdentity"] == "one"
        assert not holding.done()
        holding.cancel()

    virtual(scenario())
