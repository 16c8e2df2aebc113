"""The store's view of an object only moves forward, and an event wakes exactly whom it concerns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda_operator.cluster.interface import Change, WatchEvent
from pagoda_operator.cluster.resources import DEPLOYMENT, INFERENCE_SERVICE, NODE, PERSISTENT_VOLUME_CLAIM, POD
from pagoda_operator.controller.ownership import MANAGED_BY, ServiceKey
from pagoda_operator.controller.store import ObjectKey, Store

QWEN, LLAMA = ServiceKey("default", "qwen"), ServiceKey("default", "llama")
LABELS = {**MANAGED_BY, "pagoda.dev/service": "qwen"}


def meta(name, version, uid=None, **more):
    return {"name": name, "namespace": "default", "uid": uid or f"uid-{name}", "resourceVersion": str(version), **more}


def service(name="qwen", version=1, uid=None, planned="True", **spec):
    conditions = [{"type": "Planned", "status": planned}]
    return {"metadata": meta(name, version, uid), "spec": spec, "status": {"conditions": conditions}}


def child(version, owner="uid-qwen", uid=None, name="qwen", **spec):
    references = [{"apiVersion": "pagoda.dev/v1alpha1", "kind": "InferenceService", "name": "qwen", "controller": True}]
    more = {"labels": LABELS} | ({"ownerReferences": [{**references[0], "uid": owner}]} if owner else {})
    return {"metadata": meta(name, version, uid, **more), "spec": spec}


def pod(name, version, service_name="qwen", node=None, gpus=0, phase="Running"):
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    return {
        "metadata": meta(name, version, labels={**MANAGED_BY, "pagoda.dev/service": service_name}),
        "spec": {"containers": [{"name": "engine", "resources": resources, "env": [{}]}]}
        | ({"nodeName": node} if node else {}),
        "status": {"phase": phase},
    }


def node(name="n1", version=1, heartbeat="12:00", **labels):
    conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}]
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": {"allocatable": {}, "conditions": conditions, "images": [1]}}


@pytest.fixture
def store():
    store = Store()
    store.put(INFERENCE_SERVICE, service())
    store.put(INFERENCE_SERVICE, service("llama", planned="False"))
    return store


def test_an_older_view_does_not_replace_a_newer_one(store):
    store.put(DEPLOYMENT, child(10, replicas=2))
    assert store.put(DEPLOYMENT, child(9, replicas=1)) == frozenset()
    assert store.children(service())["Deployment", "qwen"]["spec"] == {"replicas": 2}


@given(st.permutations(range(1, 7)))
def test_whatever_the_order_of_events_the_last_state_stays(order):
    """Six states of one object, the last of which is its end, in any order: it is gone in the end."""
    store = Store()
    store.put(INFERENCE_SERVICE, service())
    for version in order:
        change = Change.DELETED if version == 6 else Change.MODIFIED
        store.observe(WatchEvent(change, DEPLOYMENT, child(version, replicas=version)))
    assert store.children(service()) == {}


def test_the_end_of_a_predecessor_does_not_end_its_successor(store):
    store.put(DEPLOYMENT, child(20, uid="new"))
    store.remove(DEPLOYMENT, child(15, uid="old"))
    assert store.children(service())["Deployment", "qwen"]["metadata"]["uid"] == "new"


@pytest.mark.parametrize(
    ("resource", "obj", "woken"),
    [
        (INFERENCE_SERVICE, service(version=2, replicas=3), {QWEN}),
        (DEPLOYMENT, child(5), {QWEN}),
        (POD, pod("p", 5), {QWEN}),
        (POD, pod("p", 5, "llama"), {LLAMA}),
        (NODE, node(), {QWEN, LLAMA}),
        (DEPLOYMENT, {"metadata": meta("stranger", 5), "spec": {}}, set()),
    ],
    ids=["service", "child", "pod", "other pod", "node", "stranger"],
)
def test_an_event_wakes_whom_it_concerns(store, resource, obj, woken):
    assert store.observe(WatchEvent(Change.ADDED, resource, obj)) == woken
    assert store.observe(WatchEvent(Change.MODIFIED, resource, obj)) == set(), "the same again wakes nobody"


def test_a_heartbeat_wakes_nobody_and_a_new_label_everybody(store):
    store.put(NODE, node(version=1))
    assert store.put(NODE, node(version=2, heartbeat="12:01")) == frozenset()
    assert store.put(NODE, node(version=3, heartbeat="12:02", gpu="h100")) == {QWEN, LLAMA}


def test_a_pod_that_ends_wakes_the_services_that_could_not_be_planned(store):
    store.put(POD, pod("p", 5, node="n1", gpus=8))
    assert store.remove(POD, pod("p", 6)) == {QWEN, LLAMA}


def test_a_child_is_its_controllers_or_a_claim_that_was_left_behind(store):
    """A child of an earlier service of that name is not this one's: garbage collection is about to take it."""
    store.put(PERSISTENT_VOLUME_CLAIM, child(5, owner=None, name="qwen-models"))
    store.put(DEPLOYMENT, child(6, owner="uid-of-an-earlier-qwen"))
    assert set(store.children(service())) == {("PersistentVolumeClaim", "qwen-models")}


def test_gpus_of_other_services_pods_are_counted_while_they_run(store):
    store.put(POD, pod("a", 1, "llama", "n1", gpus=2))
    store.put(POD, pod("b", 2, "llama", "n1", gpus=1))
    store.put(POD, pod("c", 3, "llama", "n2", gpus=4, phase="Succeeded"))
    store.put(POD, pod("d", 4, "llama", None, gpus=8))
    store.put(POD, pod("e", 5, "qwen", "n1", gpus=1))
    assert store.requested(QWEN) == {"n1": 3}
    assert store.requested(LLAMA) == {"n1": 1}


def test_only_what_planning_reads_is_kept(store):
    managed = child(5)
    managed["metadata"]["managedFields"] = [{"manager": "x"}]
    managed["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"}
    store.put(DEPLOYMENT, managed)
    kept = store.children(service())["Deployment", "qwen"]["metadata"]
    assert "managedFields" not in kept
    assert kept["annotations"] == {"kept": "yes"}
    assert "managedFields" in managed["metadata"], "what was passed in is left as it was"
    written = pod("p", 6)
    written["metadata"]["annotations"] = {"pagoda.dev/model-uri": "hf://a/b", "prometheus.io/port": "8000"}
    written["metadata"]["labels"]["pod-template-hash"] = "5b7b5c577c"
    store.put(POD, written)
    (kept,) = store.pods(QWEN)
    assert "env" not in kept["spec"]["containers"][0]
    assert kept["metadata"]["annotations"] == {"pagoda.dev/model-uri": "hf://a/b"}
    assert kept["metadata"]["labels"] == {"pagoda.dev/service": "qwen"}
    store.put(NODE, node())
    assert "images" not in store.object(ObjectKey(NODE, "", "n1"))["status"]


def test_what_has_been_seen_is_a_version_a_later_one_or_the_end(store):
    store.put(DEPLOYMENT, child(5))
    (key,) = store.versions(DEPLOYMENT)
    assert store.has_seen(key, "uid-qwen", 5)
    assert not store.has_seen(key, "uid-qwen", 6)
    store.remove(DEPLOYMENT, child(7))
    assert store.has_seen(key, "uid-qwen", 6), "its end is later than any of its versions"
    assert not store.has_seen(key, "another", 8)
