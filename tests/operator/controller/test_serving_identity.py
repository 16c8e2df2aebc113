"""Certificates are there, stay fresh and are the same for all instances, with no write that is not needed."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import CONFIG_MAP, SECRET
from pagoda_operator.controller.authorities import AuthorityStore
from pagoda_operator.controller.serving_identity import ROUND, ServingIdentity
from pagoda_operator.scaling.certificates import AUTHORITY_LIFE, AUTHORITY_RENEWAL, SETTLING, Authorities

SECRET_NAME = "pagoda-external-metrics"
START = datetime(2026, 1, 1, tzinfo=UTC)


def config_map(authority: str):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"requestheader-client-ca-file": authority, "requestheader-allowed-names": "[]"},
    }


class World:
    """An in-memory cluster as the chart and the API server leave it."""

    def __init__(self, recording):
        self.memory = MemoryCluster()
        self.cluster = recording(self.memory)
        self.proxy = Authorities().renewed(datetime.now(UTC)).bundle.decode()

    async def prepare(self, data=None):
        metadata = {"name": SECRET_NAME, "namespace": "pagoda-system"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **({"data": data} if data else {})}
        await self.memory.create(SECRET, secret)
        await self.memory.create(CONFIG_MAP, config_map(self.proxy))

    def instance(self, now=lambda: START):
        store = AuthorityStore(self.cluster, "pagoda-system", SECRET_NAME)
        return ServingIdentity(self.cluster, store, "pagoda-external-metrics.pagoda-system.svc", now=now)


def test_the_first_instance_fills_the_charts_empty_secret_and_all_share_it(recording, virtual):
    async def scenario():
        world = World(recording)
        await world.prepare()
        first, second = world.instance(), world.instance()
        await first.refresh()
        await second.refresh()
        assert first.authorities.bundle == second.authorities.bundle
        assert world.cluster.take_writes() == [("replace", "Secret", SECRET_NAME)]
        assert first.front_proxy.authorities == world.proxy

    virtual(scenario())


def test_two_instances_that_start_at_once_end_with_one_authority(recording, virtual):
    """The second writer meets a newer Secret, and takes what it finds."""

    async def scenario():
        world = World(recording)
        await world.prepare()
        instances = [world.instance() for _ in range(5)]
        await asyncio.gather(*(instance.refresh() for instance in instances))
        assert len({instance.authorities.bundle for instance in instances}) == 1

    virtual(scenario())


def test_eleven_years_pass_without_a_restart(recording, virtual):
    """The authority is replaced a year before its end, and dropped at its end; no certificate is ever overdue."""

    async def scenario():
        world = World(recording)
        await world.prepare()
        change, days = AUTHORITY_LIFE - AUTHORITY_RENEWAL, timedelta(days=10)
        # Half-hours of eleven years are too many to walk through; those around the change are not.
        times = [
            *(START + days * n for n in range(change // days)),
            *(START + change + ROUND * n for n in range(-4, 5)),
            *(START + change + days * n for n in range(1, 2 * AUTHORITY_RENEWAL // days)),
        ]
        walked, bundles = [START], []
        instances = [world.instance(now=lambda: walked[-1]) for _ in range(2)]
        for time in times:
            walked.append(time)
            waits = [await instance.refresh() for instance in instances]
            assert all(timedelta(0) < wait <= ROUND for wait in waits)
            bundles.append(instances[0].authorities.bundle)
        assert len(world.cluster.take_writes()) == 3
        assert len(set(bundles)) == 3

    virtual(scenario())


def test_a_secret_that_can_not_be_used_is_made_anew(recording, virtual, caplog):
    async def scenario():
        world = World(recording)
        await world.prepare({"a.crt": "bm9uc2Vuc2U="})
        instance = world.instance()
        await instance.refresh()
        assert len(instance.authorities.members) == 1
        assert "is made anew: a.crt has no a.key beside it" in caplog.text

    virtual(scenario())


@pytest.mark.parametrize("lacking", ["secret", "aggregation"])
def test_what_is_missing_is_told_once_and_tried_again(recording, virtual, caplog, lacking):
    """It goes on by itself once the chart's Secret, or the API server's flag, is there."""

    async def scenario():
        world = World(recording)
        if lacking == "aggregation":
            await world.prepare()
            live = await world.memory.get(CONFIG_MAP, "kube-system", "extension-apiserver-authentication")
            await world.memory.replace(CONFIG_MAP, {**live, "data": {}})
        instance = world.instance()
        running = asyncio.create_task(instance.run())
        await instance.tried()
        await asyncio.sleep(100)
        told = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert told == [f"external metrics can't be served: {instance.problem}"]
        assert {"secret": "not found", "aggregation": "aggregation layer is off"}[lacking] in instance.problem
        if lacking == "secret":
            await world.prepare()
        else:
            live = await world.memory.get(CONFIG_MAP, "kube-system", "extension-apiserver-authentication")
            await world.memory.replace(CONFIG_MAP, {**live, "data": config_map(world.proxy)["data"]})
        await asyncio.sleep(20)
        assert instance.problem == ""
        assert instance.authorities is not None
        running.cancel()
        await asyncio.wait([running])

    virtual(scenario())


def test_an_instance_learns_of_anothers_authority_before_it_signs():
    assert ROUND < SETTLING
