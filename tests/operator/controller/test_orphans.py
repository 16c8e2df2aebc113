"""What the garbage collector has left of a service that is gone is deleted, and nothing else ever."""

import pytest

from pagoda_operator.cluster.errors import Unavailable
from pagoda_operator.cluster.interface import NEVER
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, INFERENCE_SERVICE
from pagoda_operator.controller.orphans import Orphans
from pagoda_operator.controller.ownership import MANAGED_BY
from pagoda_operator.controller.store import Store

GONE = "uid-of-one-that-is-gone"


def service(name):
    metadata = {"name": name, "namespace": "default"}
    spec = {"model": {"uri": "hf://a/b"}}
    return {"apiVersion": "pagoda.dev/v1alpha1", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def child(name, uid=None, kind="InferenceService"):
    """A Deployment of service `name`; of nobody without `uid`."""
    api_version = "pagoda.dev/v1alpha1" if kind == "InferenceService" else "apps/v1"
    owner = {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": True}
    metadata = {
        "name": name,
        "namespace": "default",
        "labels": {**MANAGED_BY, "pagoda.dev/service": name},
        "ownerReferences": [owner] if uid else [],
        "resourceVersion": NEVER,
    }
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "engine", "image": "engine:1"}]},
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


class Scene:
    """A cluster whose garbage collector is away, and what the operator knows of it."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.store = Store()
        self.orphans = Orphans(cluster, self.store)

    async def add(self, resource, obj, *, known=True):
        made = await self.cluster.cluster.apply(resource, obj, force=False)
        if known:
            self.store.put(resource, made)
        return made

    async def left(self):
        return {obj["metadata"]["name"] for obj in await self.cluster.cluster.list(DEPLOYMENT)}


@pytest.fixture
def scene(recording):
    return Scene(recording(MemoryCluster(collects=False)))


def test_what_is_left_of_a_service_goes_at_the_second_look(virtual, scene):
    """The garbage collector has its time first."""

    async def scenario():
        await scene.add(DEPLOYMENT, child("qwen", GONE))
        await scene.orphans.look()
        assert await scene.left() == {"qwen"}
        await scene.orphans.look()
        assert await scene.left() == set()

    virtual(scenario())


def test_a_successor_gets_its_place(virtual, scene):
    """A former service of the same name is gone for certain: the API knows one of a name."""

    async def scenario():
        await scene.add(INFERENCE_SERVICE, service("qwen"))
        await scene.add(DEPLOYMENT, child("qwen", GONE))
        await scene.orphans.look()
        await scene.orphans.look()
        assert await scene.left() == set()

    virtual(scenario())


def test_what_is_somebodys_is_left_alone(virtual, scene):
    """Children of a living service, of another kind's, of nobody (a model cache that is retained)."""

    async def scenario():
        made = await scene.add(INFERENCE_SERVICE, service("qwen"))
        await scene.add(DEPLOYMENT, child("qwen", made["metadata"]["uid"]))
        await scene.add(DEPLOYMENT, child("kept"))
        await scene.add(DEPLOYMENT, child("foreign", GONE, kind="ReplicaSet"))
        for _ in range(3):
            await scene.orphans.look()
        assert await scene.left() == {"qwen", "kept", "foreign"}
        assert scene.cluster.reads == [], "and costs no request"

    virtual(scenario())


def test_what_has_another_owner_too_is_left_alone(virtual, scene):
    """As the garbage collector leaves it: it would only take the one owner off."""

    async def scenario():
        shared = child("qwen", GONE)
        other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "uid-of-x"}
        shared["metadata"]["ownerReferences"].append(other)
        await scene.add(DEPLOYMENT, shared)
        for _ in range(3):
            await scene.orphans.look()
        assert await scene.left() == {"qwen"}

    virtual(scenario())


def test_a_garbage_collector_that_is_at_work_is_let_work(virtual, scene):
    """As long as orphans go without our doing; then the rest is taken."""

    async def scenario():
        names = ("one", "two", "three")
        made = [await scene.add(DEPLOYMENT, child(name, GONE)) for name in names]
        for left, gone in zip(({"two", "three"}, {"three"}), made, strict=False):
            await scene.orphans.look()
            metadata = gone["metadata"]
            await scene.cluster.cluster.delete(DEPLOYMENT, "default", metadata["name"], uid=metadata["uid"])
            scene.store.remove(DEPLOYMENT, gone)
            assert await scene.left() == left
        await scene.orphans.look()
        assert await scene.left() == {"three"}
        await scene.orphans.look()
        assert await scene.left() == set()

    virtual(scenario())


def test_a_service_that_the_watch_has_not_told_of_keeps_its_children(virtual, scene):
    async def scenario():
        made = await scene.add(INFERENCE_SERVICE, service("qwen"), known=False)
        await scene.add(DEPLOYMENT, child("qwen", made["metadata"]["uid"]))
        for _ in range(3):
            await scene.orphans.look()
        assert await scene.left() == {"qwen"}

    virtual(scenario())


def test_a_child_that_was_given_away_meanwhile_is_left_alone(virtual, scene):
    """`kubectl delete --cascade=orphan` takes the owner off; a watch that is late does not know that yet."""

    async def scenario():
        stale = child("qwen", GONE)
        made = await scene.add(DEPLOYMENT, child("qwen"), known=False)
        owners = stale["metadata"]["ownerReferences"]
        scene.store.put(DEPLOYMENT, made | {"metadata": made["metadata"] | {"ownerReferences": owners}})
        for _ in range(3):
            await scene.orphans.look()
        assert await scene.left() == {"qwen"}

    virtual(scenario())


def test_an_api_server_that_does_not_answer_is_asked_again(virtual, scene):
    async def scenario():
        await scene.add(DEPLOYMENT, child("qwen", GONE))
        scene.cluster.refuse["delete", "Deployment"] = Unavailable("busy")
        for _ in range(2):
            await scene.orphans.look()
        assert await scene.left() == {"qwen"}
        scene.cluster.refuse.clear()
        await scene.orphans.look()
        assert await scene.left() == set()

    virtual(scenario())
