"""The leader takes the cluster's external metrics where they are free, and nobody else's ever."""

from __future__ import annotations

import asyncio
import base64
import logging
from datetime import UTC, datetime

import pytest

from pagoda_engine.contract import ModelFacts
from pagoda_operator.cluster.errors import Forbidden
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import API_SERVICE, CLUSTER_ROLE, HORIZONTAL_POD_AUTOSCALER, INFERENCE_SERVICE
from pagoda_operator.controller.api_service import PERIOD, SOON, ApiServiceKeeper
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource
from pagoda_operator.core.api_service import NAME, Backend
from pagoda_operator.core.settings import Settings
from pagoda_operator.scaling.certificates import Authorities

US = Backend("pagoda-system", "pagoda-external-metrics")
ROLE = "pagoda-system-pagoda-external-metrics"
KEDA = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": NAME},
    "spec": {
        "group": "external.metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"namespace": "keda", "name": "keda-metrics", "port": 443},
    },
}


class Serving:
    """Certificates that are there, or not."""

    def __init__(self):
        self.authorities, self.problem = Authorities().renewed(datetime.now(UTC)), ""

    async def run(self):
        await asyncio.Event().wait()

    async def tried(self):
        """At once."""


class World:
    """An in-memory cluster with the chart's ClusterRole, and a keeper at work in it."""

    def __init__(self, recording, *, owner=ROLE):
        self.memory = MemoryCluster()
        self.cluster = recording(self.memory)
        self.serving = Serving()
        self.keeper = ApiServiceKeeper(self.cluster, self.serving, US, owner)
        self.changes = 0

    async def __aenter__(self):
        role = {"apiVersion": CLUSTER_ROLE.api_version, "kind": "ClusterRole", "metadata": {"name": ROLE}}
        await self.memory.create(CLUSTER_ROLE, role)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])

    async def start(self):
        self._task = asyncio.create_task(self._work())
        await asyncio.sleep(0.1)

    async def _work(self):
        while True:
            self.changes += await self.keeper.ask()
            await asyncio.sleep(self.keeper.pause)

    async def live(self):
        return await self.memory.get(API_SERVICE, None, NAME)

    async def remove(self):
        await self.memory.delete(API_SERVICE, None, NAME, uid=(await self.live())["metadata"]["uid"])


def test_a_free_group_is_taken_once(recording, virtual):
    """It is made with our certificates and the chart's role as its owner; a steady cluster is not written to."""

    async def scenario():
        async with World(recording) as world:
            await world.start()
            live = await world.live()
            assert base64.b64decode(live["spec"]["caBundle"]) == world.serving.authorities.bundle
            assert [owner["name"] for owner in live["metadata"]["ownerReferences"]] == [ROLE]
            assert world.cluster.take_writes() == [("create", "APIService", NAME)]
            reads = len(world.cluster.reads)
            await asyncio.sleep(3600)
            assert world.cluster.take_writes() == []
            assert {kind for _, kind, _ in world.cluster.reads[reads:]} == {"APIService"}
            assert (world.keeper.holder, world.keeper.problem, world.changes) == ("", "", 0)

    virtual(scenario())


def test_a_foreign_owner_is_left_alone_and_named_until_the_group_is_free(recording, virtual, caplog):
    """Not one write while somebody has it; it is told once; soon after it is gone the group is ours."""

    async def scenario():
        async with World(recording) as world:
            theirs = await world.memory.acting_as("helm").create(API_SERVICE, KEDA)
            await world.start()
            await asyncio.sleep(10 * PERIOD)
            assert world.cluster.take_writes() == []
            assert await world.live() == theirs
            assert world.keeper.holder == "Service keda/keda-metrics"
            assert world.changes == 1
            told = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
            assert len(told) == 1
            assert "external.metrics.k8s.io is held by Service keda/keda-metrics and is not taken over" in told[0]
            await world.remove()
            await asyncio.sleep(PERIOD + 0.1)
            assert (await world.live())["spec"]["service"]["namespace"] == "pagoda-system"
            assert (world.keeper.holder, world.changes) == ("", 2)
            assert caplog.records[-1].getMessage() == "external.metrics.k8s.io is served by this operator"

    with caplog.at_level(logging.INFO):
        virtual(scenario())


def test_who_takes_it_from_us_keeps_it(recording, virtual):
    """KEDA installed later points our APIService at itself: we don't fight, though our label may be left on it."""

    async def scenario():
        async with World(recording) as world:
            await world.start()
            world.cluster.take_writes()
            await world.memory.acting_as("helm").apply(API_SERVICE, KEDA, force=True)
            await asyncio.sleep(10 * PERIOD)
            assert world.cluster.take_writes() == []
            assert (await world.live())["spec"]["service"]["name"] == "keda-metrics"
            assert world.keeper.holder == "Service keda/keda-metrics"

    virtual(scenario())


def test_what_is_ours_is_repaired(recording, virtual):
    """An edit of another field and a new authority are both written, once each."""

    async def scenario():
        async with World(recording) as world:
            await world.start()
            world.cluster.take_writes()
            live = await world.live()
            await world.memory.acting_as("kubectl").replace(
                API_SERVICE, {**live, "spec": {**live["spec"], "insecureSkipTLSVerify": True, "caBundle": "AAAA"}}
            )
            await asyncio.sleep(2 * PERIOD)
            assert world.cluster.take_writes() == [("force", "APIService", NAME)]
            world.serving.authorities = Authorities().renewed(datetime.now(UTC))
            await asyncio.sleep(2 * PERIOD)
            live = await world.live()
            assert base64.b64decode(live["spec"]["caBundle"]) == world.serving.authorities.bundle
            assert world.cluster.take_writes() == [("force", "APIService", NAME)]

    virtual(scenario())


def test_what_the_api_server_says_of_us_is_passed_on(recording, virtual):
    """An APIService of ours that is not Available is a problem in the API server's words, and looked at again soon."""

    async def scenario():
        async with World(recording) as world:
            await world.start()

            async def available(status, message):
                condition = {"type": "Available", "status": status, "reason": "Check", "message": message}
                await world.memory.apply_status(API_SERVICE, {**KEDA, "status": {"conditions": [condition]}})

            await available("False", "no route to host")
            await asyncio.sleep(PERIOD)
            assert world.keeper.problem == "Check: no route to host"
            await available("True", "all checks passed")
            await asyncio.sleep(SOON)
            assert (world.keeper.problem, world.changes) == ("", 2)

    virtual(scenario())


@pytest.mark.parametrize("missing", ["certificates", "right"])
def test_what_is_missing_is_a_problem_in_its_own_words(recording, virtual, missing):
    """Without a certificate nothing is promised to the API server; without the right to make one, that is told."""

    async def scenario():
        async with World(recording) as world:
            if missing == "certificates":
                world.serving.authorities, world.serving.problem = None, "aggregation is off"
                words = "aggregation is off"
            else:
                words = 'apiservices.apiregistration.k8s.io is forbidden: User "x" cannot create'
                world.cluster.refuse["create", "APIService"] = Forbidden(words)
            await world.start()
            assert (world.keeper.problem, world.changes) == (words, 1)
            world.serving.authorities, world.serving.problem = Authorities().renewed(datetime.now(UTC)), ""
            world.cluster.refuse.clear()
            await asyncio.sleep(SOON)
            assert (world.keeper.problem, world.changes) == ("", 2)
            assert await world.live()

    virtual(scenario())


def test_without_a_role_it_has_no_owner(recording, virtual):
    """`rbac.create=false`: nobody is asked for a role that is not there."""

    async def scenario():
        async with World(recording, owner="") as world:
            await world.start()
            assert "ownerReferences" not in (await world.live())["metadata"]

    virtual(scenario())


def test_scalers_are_told_to_read_what_there_is(recording, virtual):
    """An operator that starts where somebody else has the group never sends an HPA there, and does once it is free."""

    async def inspect(uri, environment):
        return ModelFacts("LlamaForCausalLM", "bfloat16", 2 << 20, 1 << 20, 4, 8, 8, 16, 128, 1000, 512)

    async def fetch(url):
        raise AssertionError("there are no pods to ask")

    async def scenario():
        world = World(recording)
        memory, user = world.memory, world.memory.acting_as("kubectl")
        await memory.create(
            CLUSTER_ROLE, {"apiVersion": CLUSTER_ROLE.api_version, "kind": "ClusterRole", "metadata": {"name": ROLE}}
        )
        await user.create(API_SERVICE, KEDA)
        metadata = {"name": "qwen", "namespace": "default"}
        spec = {"model": {"uri": "hf://org/model"}, "accelerator": "cpu", "autoscaling": {"maxReplicas": 3}}
        service = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.kind}
        await user.create(INFERENCE_SERVICE, {**service, "metadata": metadata, "spec": spec})
        controller = Controller(
            world.cluster,
            StreamSource(memory),
            Settings(external_metrics=True),
            external_metrics=world.keeper,
            inspect=inspect,
            fetch=fetch,
        )
        task = asyncio.create_task(controller.run())

        async def metrics():
            hpa = await memory.get(HORIZONTAL_POD_AUTOSCALER, "default", "qwen")
            return {metric["type"] for metric in hpa["spec"]["metrics"]}

        await asyncio.sleep(60)
        assert await metrics() == {"Pods"}
        written = [write for write in world.cluster.take_writes() if write[1] == "HorizontalPodAutoscaler"]
        assert len(written) == 1, "it did not change its mind"
        await user.delete(API_SERVICE, None, NAME, uid=(await world.live())["metadata"]["uid"])
        await asyncio.sleep(60)
        assert await metrics() == {"External"}
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    virtual(scenario())
