"""The whole controller over an in-memory cluster, in virtual time: hours pass, and every write is counted."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest

from pagoda_engine.contract import Metric, ModelFacts
from pagoda_operator.cluster.errors import Conflict, Forbidden, Invalid, Terminating, Unavailable
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import (
    DEPLOYMENT,
    EVENT,
    HORIZONTAL_POD_AUTOSCALER,
    INFERENCE_SERVICE,
    LEASE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    SCALED_OBJECT,
    SERVICE,
    SERVICE_ACCOUNT,
)
from pagoda_operator.controller.lease import LeaseElector
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource, WatchFailed
from pagoda_operator.controller.store import condition
from pagoda_operator.core.facts import ModelUnreadable
from pagoda_operator.core.settings import Settings

FACTS = ModelFacts("LlamaForCausalLM", "bfloat16", 2 << 20, 1 << 20, 4, 8, 8, 16, 128, 1000, 512)
CHILDREN = [
    (SERVICE_ACCOUNT, "qwen"),
    (PERSISTENT_VOLUME_CLAIM, "qwen-models"),
    (SERVICE, "qwen"),
    (POD_DISRUPTION_BUDGET, "qwen"),
    (DEPLOYMENT, "qwen"),
]
NUMBERS = f"{Metric.WAITING} 0.0\n{Metric.RUNNING} 0.0\n".encode()


async def inspect(uri, environment):
    await asyncio.sleep(1)
    return FACTS


async def fetch(url):
    assert url.endswith("/metrics")
    return 200, NUMBERS


def qwen(name="qwen", **spec):
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"uri": "hf://org/model"}, "accelerator": "cpu", **spec},
    }


@asynccontextmanager
async def running(cluster, *, watched=None, **options):
    """A controller at work."""
    options = {"inspect": inspect, "fetch": fetch} | options
    source = options.pop("source", None) or StreamSource(watched or cluster)
    controller = Controller(cluster, source, Settings(), **options)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def names(cluster):
    return [(resource, obj["metadata"]["name"]) for resource, _ in CHILDREN for obj in await cluster.list(resource)]


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
            await world.create(INFERENCE_SERVICE, qwen())
            await asyncio.sleep(10)
            await serve(world)
            await asyncio.sleep(60)
        cluster.take_writes()
        async with running(cluster):
            await asyncio.sleep(60)
        async with running(cluster, inspect=unreadable):
            await asyncio.sleep(3600)
        assert cluster.take_writes() == []

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
            service = await world.get(INFERENCE_SERVICE, "default", "qwen")
            assert condition(service, "Ready")["reason"] != "NameConflict"

    virtual(scenario())


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
