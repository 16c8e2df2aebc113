"""What every `Cluster` promises, as functions that take one: run on the in-memory cluster here, on a real one in e2e.

`CONTRACT` are functions of (cluster, namespace); `CONTRACT_OF_TWO` of (cluster, other, namespace), where `other` is the
same cluster written to by another field manager. Each leaves its objects behind, so each needs a namespace of its own.
"""

import asyncio

import pytest

from pagoda_operator.cluster.errors import AlreadyExists, Conflict, Invalid, NotFound
from pagoda_operator.cluster.interface import NEVER
from pagoda_operator.cluster.resources import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    LEASE,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
)


def named(resource, namespace: str, name: str = "x", **rest) -> dict:
    metadata = {"name": name, "namespace": namespace, **rest.pop("metadata", {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **rest}


def account(namespace: str, name: str = "x", **metadata) -> dict:
    return named(SERVICE_ACCOUNT, namespace, name, metadata=metadata)


def deployment(namespace: str, *containers: dict, **spec) -> dict:
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": list(containers) or [{"name": "c", "image": "i"}]},
    }
    return named(
        DEPLOYMENT,
        namespace,
        spec={"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template, **spec},
    )


def inference_service(namespace: str, name: str = "x", **spec) -> dict:
    return named(INFERENCE_SERVICE, namespace, name, spec={"model": {"uri": "hf://o/m"}, **spec})


def status(replicas: int, **rest) -> dict:
    """A status with every field that has a default, since an API server would add it."""
    return {"replicas": replicas, "readyReplicas": 0, **rest}


async def changed_by_hand(cluster, resource, namespace: str, change) -> None:
    """Read, change, replace, as often as it takes: a real Deployment is written to by its controller meanwhile."""
    while True:
        live = await cluster.get(resource, namespace, "x")
        change(live)
        try:
            await cluster.replace(resource, live)
        except Conflict:
            continue
        return


async def gone(cluster, resource, namespace: str, name: str, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                await cluster.get(resource, namespace, name)
            except NotFound:
                return
            await asyncio.sleep(0.01)


async def created_object_has_identity_and_is_read_back(cluster, namespace):
    made = await cluster.create(SERVICE_ACCOUNT, account(namespace, labels={"a": "b"}))
    metadata = made["metadata"]
    assert metadata["uid"]
    assert metadata["resourceVersion"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert await cluster.get(SERVICE_ACCOUNT, namespace, "x") == made
    with pytest.raises(AlreadyExists):
        await cluster.create(SERVICE_ACCOUNT, account(namespace))


async def absent_object_is_not_found(cluster, namespace):
    with pytest.raises(NotFound, match='"x" not found'):
        await cluster.get(SERVICE_ACCOUNT, namespace, "x")
    with pytest.raises(NotFound):
        await cluster.apply_status(INFERENCE_SERVICE, inference_service(namespace) | {"status": {"replicas": 1}})
    with pytest.raises(NotFound):
        await cluster.delete(SERVICE_ACCOUNT, namespace, "x", uid="0")


async def name_is_generated(cluster, namespace):
    obj = account(namespace)
    del obj["metadata"]["name"]
    obj["metadata"]["generateName"] = "engine-"
    names = {(await cluster.create(SERVICE_ACCOUNT, obj))["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("engine-") and len(name) == len("engine-") + 5 for name in names)


async def list_selects_by_labels_and_names_the_kind(cluster, namespace):
    for name, labels in (("a", {"k": "1", "l": "1"}), ("b", {"k": "1"}), ("c", {"k": "2"})):
        await cluster.create(SERVICE_ACCOUNT, account(namespace, name, labels=labels))

    async def names(**options) -> list[str]:
        found = await cluster.list(SERVICE_ACCOUNT, namespace, **options)
        assert all((obj["apiVersion"], obj["kind"]) == ("v1", "ServiceAccount") for obj in found)
        return sorted(obj["metadata"]["name"] for obj in found if obj["metadata"]["name"] != "default")

    assert await names() == ["a", "b", "c"]
    assert await names(labels={"k": "1"}) == ["a", "b"]
    assert await names(labels={"k": "1", "l": "1"}) == ["a"]
    assert await names(labels={"k": "2"}, metadata_only=True) == ["c"]
    assert await names(without={"k": "1"}) == ["c"]
    assert await names(labels={"k": "1"}, without={"l": "1"}, fields={"metadata.name": "b"}) == ["b"]
    assert await names(fields={"metadata.name": "x"}) == []
    everywhere = await cluster.list(SERVICE_ACCOUNT, labels={"k": "2"})
    assert namespace in {obj["metadata"]["namespace"] for obj in everywhere}


async def apply_creates_then_changes_then_forgets(cluster, namespace):
    first = await cluster.apply(
        SERVICE_ACCOUNT, account(namespace, labels={"a": "1", "b": "1"}, annotations={"n": "1"}), force=False
    )
    second = await cluster.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "2"}), force=False)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["labels"] == {"a": "2"}
    assert "annotations" not in second["metadata"]
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


async def same_apply_again_writes_nothing(cluster, namespace):
    wanted = deployment(namespace)
    first = await cluster.apply(DEPLOYMENT, wanted, force=False)
    await cluster.apply_status(DEPLOYMENT, wanted | {"status": {"observedGeneration": 1, "replicas": 1}})
    before = await cluster.get(DEPLOYMENT, namespace, "x")
    second = await cluster.apply(DEPLOYMENT, wanted, force=True)
    assert second["metadata"]["generation"] == first["metadata"]["generation"] == 1
    assert second["spec"] == before["spec"]


async def apply_merges_lists_by_their_keys(cluster, namespace):
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]
    await cluster.apply(DEPLOYMENT, deployment(namespace, {"name": "c", "image": "i", "env": env}), force=False)
    env = [{"name": "B", "value": "2"}, {"name": "C", "value": "2"}]
    wanted = deployment(namespace, {"name": "c", "image": "i", "env": env}, replicas=0)
    after = await cluster.apply(DEPLOYMENT, wanted, force=False)
    (container,) = after["spec"]["template"]["spec"]["containers"]
    assert container["env"] == env
    assert after["metadata"]["generation"] == 2


async def removed_item_of_a_keyed_list_goes_whole(cluster, namespace):
    two = deployment(namespace, {"name": "c", "image": "i"}, {"name": "d", "image": "i", "args": ["x"]})
    await cluster.apply(DEPLOYMENT, two, force=False)
    after = await cluster.apply(DEPLOYMENT, deployment(namespace), force=False)
    assert [container["name"] for container in after["spec"]["template"]["spec"]["containers"]] == ["c"]


async def plain_list_is_one_value(cluster, namespace):
    await cluster.apply(DEPLOYMENT, deployment(namespace, {"name": "c", "image": "i", "args": ["a", "b"]}), force=False)
    after = await cluster.apply(
        DEPLOYMENT, deployment(namespace, {"name": "c", "image": "i", "args": ["b"]}), force=False
    )
    assert after["spec"]["template"]["spec"]["containers"][0]["args"] == ["b"]


async def apply_with_a_uid_never_creates(cluster, namespace):
    with pytest.raises(Conflict):
        await cluster.apply(SERVICE_ACCOUNT, account(namespace, uid="00000000-0000-0000-0000-000000000000"), force=True)
    with pytest.raises(NotFound):
        await cluster.get(SERVICE_ACCOUNT, namespace, "x")
    await cluster.apply(SERVICE_ACCOUNT, account(namespace), force=True)
    with pytest.raises(Conflict):
        await cluster.apply(SERVICE_ACCOUNT, account(namespace, uid="00000000-0000-0000-0000-000000000000"), force=True)


async def apply_of_a_version_that_never_was_creates_and_does_nothing_else(cluster, namespace):
    """What stands in the place is left alone, even where it could be merged into."""
    made = await cluster.apply(
        SERVICE_ACCOUNT, account(namespace, labels={"a": "1"}, resourceVersion=NEVER), force=False
    )
    assert made["metadata"]["labels"] == {"a": "1"}
    assert made["metadata"]["resourceVersion"] != NEVER
    wanted = account(namespace, labels={"a": "1", "b": "1"}, resourceVersion=NEVER)
    for force in (False, True):
        with pytest.raises(Conflict):
            await cluster.apply(SERVICE_ACCOUNT, wanted, force=force)
    assert await cluster.get(SERVICE_ACCOUNT, namespace, "x") == made
    changed = account(namespace, labels={"a": "2"}, resourceVersion=made["metadata"]["resourceVersion"])
    assert (await cluster.apply(SERVICE_ACCOUNT, changed, force=False))["metadata"]["labels"] == {"a": "2"}
    for wanted in (deployment(namespace), inference_service(namespace)):
        kind = DEPLOYMENT if wanted["kind"] == "Deployment" else INFERENCE_SERVICE
        await cluster.apply(kind, wanted | {"metadata": wanted["metadata"] | {"resourceVersion": NEVER}}, force=False)


async def status_and_spec_are_written_apart(cluster, namespace):
    made = await cluster.create(INFERENCE_SERVICE, inference_service(namespace) | {"status": {"replicas": 7}})
    assert "status" not in made
    told = inference_service(namespace, replicas=5) | {"status": status(1, url="http://x")}
    after = await cluster.apply_status(INFERENCE_SERVICE, told)
    assert after["status"] == status(1, url="http://x")
    assert after["spec"]["replicas"] == 1
    assert after["metadata"]["generation"] == made["metadata"]["generation"] == 1
    after = await cluster.apply_status(INFERENCE_SERVICE, inference_service(namespace) | {"status": status(2)})
    assert after["status"] == status(2), "what is not told any more is gone"
    after = await cluster.apply(INFERENCE_SERVICE, inference_service(namespace, replicas=2), force=True)
    assert after["status"] == status(2)
    assert after["metadata"]["generation"] == 2


async def inference_service_gets_its_defaults(cluster, namespace):
    made = await cluster.create(INFERENCE_SERVICE, inference_service(namespace))
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["accelerator"] == "auto"


async def bad_inference_service_is_refused_with_the_field(cluster, namespace):
    with pytest.raises(Invalid, match="7b-chat"):
        await cluster.create(INFERENCE_SERVICE, inference_service(namespace, "7b-chat"))
    with pytest.raises(Invalid, match=r"spec\.replicas"):
        await cluster.apply(INFERENCE_SERVICE, inference_service(namespace, replicas=-1), force=True)
    with pytest.raises(NotFound):
        await cluster.get(INFERENCE_SERVICE, namespace, "x")


async def selector_of_a_deployment_cannot_change(cluster, namespace):
    await cluster.apply(DEPLOYMENT, deployment(namespace), force=False)
    other = deployment(namespace, selector={"matchLabels": {"app": "y"}})
    other["spec"]["template"]["metadata"]["labels"] = {"app": "y"}
    with pytest.raises(Invalid, match="field is immutable"):
        await cluster.apply(DEPLOYMENT, other, force=True)


async def replace_needs_the_latest_version(cluster, namespace):
    lease = named(LEASE, namespace, spec={"holderIdentity": "a"})
    made = await cluster.create(LEASE, lease)
    made["spec"]["holderIdentity"] = "b"
    after = await cluster.replace(LEASE, made)
    assert after["spec"]["holderIdentity"] == "b"
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.replace(LEASE, made)
    # Of another kind: an API server creates a Lease that is put where there is none.
    made = await cluster.create(SERVICE_ACCOUNT, account(namespace))
    elsewhere = {name: value for name, value in made["metadata"].items() if name != "uid"} | {"name": "y"}
    with pytest.raises(NotFound):
        await cluster.replace(SERVICE_ACCOUNT, made | {"metadata": elsewhere})


async def delete_is_of_one_uid(cluster, namespace):
    made = await cluster.create(SERVICE_ACCOUNT, account(namespace))
    with pytest.raises(Conflict):
        await cluster.delete(SERVICE_ACCOUNT, namespace, "x", uid="00000000-0000-0000-0000-000000000000")
    await cluster.delete(SERVICE_ACCOUNT, namespace, "x", uid=made["metadata"]["uid"])
    await gone(cluster, SERVICE_ACCOUNT, namespace, "x")


def owned_by(*owners: dict) -> list[dict]:
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        for owner in owners
    ]


async def dependents_go_with_their_last_owner(cluster, namespace):
    a = await cluster.create(SERVICE_ACCOUNT, account(namespace, "a"))
    b = await cluster.create(SERVICE_ACCOUNT, account(namespace, "b"))
    child = await cluster.create(SERVICE_ACCOUNT, account(namespace, "child", ownerReferences=owned_by(a, b)))
    await cluster.create(SERVICE_ACCOUNT, account(namespace, "grandchild", ownerReferences=owned_by(child)))
    await cluster.delete(SERVICE_ACCOUNT, namespace, "a", uid=a["metadata"]["uid"])
    await gone(cluster, SERVICE_ACCOUNT, namespace, "a")
    await asyncio.sleep(0.5)
    assert (await cluster.get(SERVICE_ACCOUNT, namespace, "child"))["metadata"]["uid"] == child["metadata"]["uid"]
    await cluster.delete(SERVICE_ACCOUNT, namespace, "b", uid=b["metadata"]["uid"])
    await gone(cluster, SERVICE_ACCOUNT, namespace, "grandchild")
    await gone(cluster, SERVICE_ACCOUNT, namespace, "child")


async def finalizer_holds_a_deleted_object(cluster, namespace):
    made = await cluster.create(SERVICE_ACCOUNT, account(namespace, finalizers=["pagoda.dev/test"]))
    await cluster.delete(SERVICE_ACCOUNT, namespace, "x", uid=made["metadata"]["uid"])
    held = await cluster.get(SERVICE_ACCOUNT, namespace, "x")
    assert held["metadata"]["deletionTimestamp"]
    del held["metadata"]["finalizers"]
    await cluster.replace(SERVICE_ACCOUNT, held)
    await gone(cluster, SERVICE_ACCOUNT, namespace, "x")


async def pod_on_no_node_goes_at_once(cluster, namespace):
    pod = named(POD, namespace, spec={"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]})
    made = await cluster.create(POD, pod)
    await cluster.delete(POD, namespace, "x", uid=made["metadata"]["uid"])
    await gone(cluster, POD, namespace, "x")


async def what_is_passed_in_and_out_is_the_callers(cluster, namespace):
    wanted = account(namespace, labels={"a": "1"})
    made = await cluster.apply(SERVICE_ACCOUNT, wanted, force=False)
    wanted["metadata"]["labels"]["a"] = "2"
    made["metadata"]["labels"]["a"] = "3"
    assert (await cluster.get(SERVICE_ACCOUNT, namespace, "x"))["metadata"]["labels"] == {"a": "1"}


async def served_kinds_are_known(cluster, namespace):
    assert await cluster.served(INFERENCE_SERVICE)
    assert await cluster.served(SERVICE)


# --- two field managers ----------------------------------------------------------------------------------------------


async def others_field_is_a_conflict_unless_forced(cluster, other, namespace):
    await other.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "theirs", "b": "theirs"}), force=False)
    with pytest.raises(Conflict, match=r"conflict with \"[^\"]+\".*\.metadata\.labels\.a"):
        await cluster.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "ours"}), force=False)
    after = await cluster.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "ours"}), force=True)
    assert after["metadata"]["labels"] == {"a": "ours", "b": "theirs"}
    with pytest.raises(Conflict):
        await other.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "theirs"}), force=False)


async def equal_value_is_no_conflict_and_then_owned_by_both(cluster, other, namespace):
    await other.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "1"}), force=False)
    await cluster.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "1"}), force=False)
    after = await cluster.apply(SERVICE_ACCOUNT, account(namespace), force=False)
    assert after["metadata"]["labels"] == {"a": "1"}, "the other manager still wants it"
    after = await other.apply(SERVICE_ACCOUNT, account(namespace), force=False)
    assert "labels" not in after["metadata"]


async def drift_by_an_update_is_a_conflict_and_repaired_by_force(cluster, other, namespace):
    await cluster.apply(DEPLOYMENT, deployment(namespace), force=False)

    def drift(live: dict) -> None:
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "drifted"
        live["metadata"]["labels"] = {"added": "by-hand"}

    await changed_by_hand(other, DEPLOYMENT, namespace, drift)
    with pytest.raises(Conflict, match="image"):
        await cluster.apply(DEPLOYMENT, deployment(namespace), force=False)
    after = await cluster.apply(DEPLOYMENT, deployment(namespace), force=True)
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "i"
    assert after["metadata"]["labels"] == {"added": "by-hand"}


async def item_added_by_another_manager_stays(cluster, other, namespace):
    await cluster.apply(DEPLOYMENT, deployment(namespace), force=False)

    def add(live: dict) -> None:
        live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "s"})

    await changed_by_hand(other, DEPLOYMENT, namespace, add)
    after = await cluster.apply(DEPLOYMENT, deployment(namespace, {"name": "c", "image": "i2"}), force=False)
    containers = after["spec"]["template"]["spec"]["containers"]
    assert {container["name"]: container["image"] for container in containers} == {"c": "i2", "sidecar": "s"}


async def managers_are_named(cluster, other, namespace):
    await cluster.apply(SERVICE_ACCOUNT, account(namespace, labels={"a": "1"}), force=False)
    after = await other.apply(SERVICE_ACCOUNT, account(namespace, labels={"b": "1"}), force=False)
    managers = {entry["manager"] for entry in after["metadata"]["managedFields"]}
    assert "pagoda-operator" in managers
    assert len(managers) == 2


CONTRACT = (
    created_object_has_identity_and_is_read_back,
    absent_object_is_not_found,
    name_is_generated,
    list_selects_by_labels_and_names_the_kind,
    apply_creates_then_changes_then_forgets,
    same_apply_again_writes_nothing,
    apply_merges_lists_by_their_keys,
    removed_item_of_a_keyed_list_goes_whole,
    plain_list_is_one_value,
    apply_with_a_uid_never_creates,
    apply_of_a_version_that_never_was_creates_and_does_nothing_else,
    status_and_spec_are_written_apart,
    inference_service_gets_its_defaults,
    bad_inference_service_is_refused_with_the_field,
    selector_of_a_deployment_cannot_change,
    replace_needs_the_latest_version,
    delete_is_of_one_uid,
    dependents_go_with_their_last_owner,
    finalizer_holds_a_deleted_object,
    pod_on_no_node_goes_at_once,
    what_is_passed_in_and_out_is_the_callers,
    served_kinds_are_known,
)
CONTRACT_OF_TWO = (
    others_field_is_a_conflict_unless_forced,
    equal_value_is_no_conflict_and_then_owned_by_both,
    drift_by_an_update_is_a_conflict_and_repaired_by_force,
    item_added_by_another_manager_stays,
    managers_are_named,
)
