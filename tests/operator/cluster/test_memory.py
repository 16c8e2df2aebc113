"""The in-memory cluster keeps the contract of every cluster, and its watches lose nothing."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.operator.cluster.cluster_contract import (
    CONTRACT,
    CONTRACT_OF_TWO,
    account,
    inference_service,
    named,
    owned_by,
)

from pagoda_operator.cluster.errors import NotFound
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, POD, SCALED_OBJECT, SERVICE_ACCOUNT


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
async def test_contract(promise):
    await promise(MemoryCluster(), "default")


@pytest.mark.parametrize("promise", CONTRACT_OF_TWO, ids=lambda promise: promise.__name__)
async def test_contract_of_two_managers(promise):
    cluster = MemoryCluster()
    await promise(cluster, cluster.acting_as("kubectl"), "default")


class Seen:
    """What a watch has told, and a way to wait for the next of it."""

    def __init__(self, cluster: MemoryCluster, resource, **options) -> None:
        self._stream = cluster.watch(resource, **options)

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(10):
            event = await anext(self._stream)
        return event.change.value, event.object["metadata"]["name"]

    async def close(self) -> None:
        await self._stream.aclose()


async def test_watch_begins_with_what_there_is_and_tells_every_change():
    cluster = MemoryCluster()
    made = await cluster.create(SERVICE_ACCOUNT, account("default", "a"))
    seen = Seen(cluster, SERVICE_ACCOUNT)
    assert await seen.next() == ("ADDED", "a")
    await cluster.apply(SERVICE_ACCOUNT, account("default", "a", labels={"k": "1"}), force=True)
    await cluster.apply(SERVICE_ACCOUNT, account("default", "a", labels={"k": "1"}), force=True)
    await cluster.create(SERVICE_ACCOUNT, account("default", "b"))
    await cluster.delete(SERVICE_ACCOUNT, "default", "a", uid=made["metadata"]["uid"])
    assert [await seen.next() for _ in range(3)] == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")], (
        "an apply that changes nothing is no event"
    )
    await seen.close()


async def test_watch_by_labels_follows_what_starts_and_stops_matching():
    cluster = MemoryCluster()
    seen = Seen(cluster, SERVICE_ACCOUNT, labels={"k": "1"})
    waiting = asyncio.create_task(seen.next())
    await cluster.apply(SERVICE_ACCOUNT, account("default", "a"), force=True)
    await cluster.apply(SERVICE_ACCOUNT, account("default", "a", labels={"k": "1"}), force=True)
    assert await waiting == ("ADDED", "a")
    await cluster.apply(SERVICE_ACCOUNT, account("default", "a", labels={"k": "2"}), force=True)
    assert await seen.next() == ("DELETED", "a")
    await seen.close()


async def test_versions_in_a_watch_only_grow():
    cluster = MemoryCluster()
    stream = cluster.watch(SERVICE_ACCOUNT)
    for label in "abc":
        await cluster.apply(SERVICE_ACCOUNT, account("default", labels={"k": label}), force=True)
    await cluster.apply(SERVICE_ACCOUNT, account("default", "y"), force=True)
    versions = [int((await anext(stream)).object["metadata"]["resourceVersion"]) for _ in range(2)]
    assert versions == sorted(set(versions))
    await stream.aclose()


def pod(**metadata) -> dict:
    spec = {"nodeName": "local", "terminationGracePeriodSeconds": 60, "containers": []}
    return named(POD, "default", spec=spec, metadata=metadata)


async def test_pod_on_a_node_is_marked_and_goes_when_its_node_says_so():
    """Its deletionTimestamp is when it is to be gone; a shorter grace period brings that forward, a longer doesn't."""
    cluster = MemoryCluster()
    uid = (await cluster.create(POD, pod()))["metadata"]["uid"]

    async def delete(**options):
        """The grace period then, and when it is over."""
        await cluster.delete(POD, "default", "x", uid=uid, **options)
        marked = (await cluster.get(POD, "default", "x"))["metadata"]
        return marked["deletionGracePeriodSeconds"], datetime.fromisoformat(marked["deletionTimestamp"])

    asked = datetime.now(UTC)
    grace, ends = await delete()
    assert grace == 60
    assert asked + timedelta(seconds=59) < ends <= datetime.now(UTC) + timedelta(seconds=60)
    assert await delete(grace_seconds=5) == (5, ends - timedelta(seconds=55))
    assert await delete() == (5, ends - timedelta(seconds=55))
    await cluster.delete(POD, "default", "x", uid=uid, grace_seconds=0)
    with pytest.raises(NotFound):
        await cluster.get(POD, "default", "x")


async def test_object_made_for_an_owner_that_is_gone_is_collected():
    """A write that lost the race against a deletion leaves nothing behind."""
    cluster = MemoryCluster()
    owner = await cluster.create(SERVICE_ACCOUNT, account("default", "owner"))
    await cluster.delete(SERVICE_ACCOUNT, "default", "owner", uid=owner["metadata"]["uid"])
    seen = Seen(cluster, SERVICE_ACCOUNT)
    await cluster.create(SERVICE_ACCOUNT, account("default", "late", ownerReferences=owned_by(owner)))
    assert await seen.next() == ("ADDED", "late")
    assert await seen.next() == ("DELETED", "late")
    await seen.close()


async def test_kind_that_is_not_served_is_not_found():
    cluster = MemoryCluster()
    assert not await cluster.served(SCALED_OBJECT)
    with pytest.raises(NotFound):
        await cluster.list(SCALED_OBJECT)
    assert await MemoryCluster(optional=frozenset({SCALED_OBJECT})).served(SCALED_OBJECT)


async def test_refusal_is_worded_as_an_api_servers():
    with pytest.raises(Exception, match=r'^InferenceService\.pagoda\.dev "x" is invalid: spec\.replicas: Invalid'):
        await MemoryCluster().create(INFERENCE_SERVICE, inference_service("default", replicas=-1))
