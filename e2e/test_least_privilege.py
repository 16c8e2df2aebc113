"""The operator may do what it does, and nothing more: its roles beside the API server's own record of its calls.

A scenario makes it use all that it has: children of every kind are made, repaired and pruned. What the audit log then
does not show is a right too many; what its roles lack would show as a 403.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import product

import pytest
from e2e.api import Object
from e2e.audit import requests
from e2e.cluster import Cluster
from e2e.convergence import CHILDREN
from e2e.hub import ModelHub
from e2e.release import CHART, NAMESPACE, Release, namespace
from e2e.rig import Rig
from e2e.services import SELECTOR

from pagoda_operator.commands.operator import LEASE_NAME
from pagoda_operator.core.deletion_cost import ANNOTATION

Right = tuple[str, str]
"""Verb, and resource with its subresource."""

UNSEEN: frozenset[Right] = frozenset({("update", "inferenceservices/finalizers")})
"""Not a call: asked for by a plugin that the harness' API server runs, OwnerReferencesPermissionEnforcement."""
ACCOUNT = "private-pagoda"
LABEL = "app.kubernetes.io/part-of"
LEASE = ("--leader-elect", "--lease-namespace", NAMESPACE)
HELD = {
    "ServiceAccount": "needy",
    "PersistentVolumeClaim": "needy-models",
    "Service": "held",
    "Deployment": "held",
    "PodDisruptionBudget": "held",
    "HorizontalPodAutoscaler": "held",
    "ScaledObject": "held-keda",
}
"""Where somebody else's object stands in a child's place, which the operator looks at; without an account no pods."""
SERVER_SET = ("clusterIP", "clusterIPs", "volumeName")


@pytest.fixture(scope="module")
def keda(bare_cluster: Cluster) -> Iterator[None]:
    """KEDA's kinds, as far as the API server knows them; KEDA itself does not run."""
    folder = str(bare_cluster.binaries.keda.crds)
    yield bare_cluster.kubectl("apply", "--server-side", "-f", folder)
    bare_cluster.kubectl("delete", "-f", folder, "--timeout=60s")


@pytest.fixture
def public(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> Iterator[Rig]:
    """An operator of the whole cluster, with the release's account."""
    free_lease(bare_cluster)
    with Rig(bare_cluster, unattended, hub.url, "public", *LEASE, everywhere=True) as ready:
        yield ready


@pytest.fixture
def private(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> Iterator[Rig]:
    """An operator of one namespace, with an account and roles as the chart makes them for it."""
    free_lease(bare_cluster)
    name = f"private-{len(list(bare_cluster.folder.glob('rig-*')))}"
    bare_cluster.make_namespace(namespace(name))
    bare_cluster.kubectl("apply", "-f", "-", text=private_roles(bare_cluster, name))
    with Rig(bare_cluster, unattended, hub.url, name, *LEASE, account=ACCOUNT) as ready:
        yield ready


def free_lease(cluster: Cluster) -> None:
    """Have the next operator make the Lease anew, and lead at once."""
    cluster.kubectl("delete", "lease", LEASE_NAME, "-n", NAMESPACE, "--ignore-not-found")


def private_roles(cluster: Cluster, namespace: str) -> str:
    """What the chart makes for an operator of one namespace, its pod apart."""
    templates = [f"--show-only=templates/{name}.yaml" for name in ("rbac", "serviceaccount")]
    values = ("--set", f"watchNamespaces={{{namespace}}}", "--set", "rbac.aggregate=false")
    return cluster.helm("template", "private", str(CHART), "-n", NAMESPACE, *values, *templates)


def granted(cluster: Cluster, rig: Rig) -> set[Right]:
    """What the roles that are bound to the rig's account let it do."""
    bound = [*cluster.objects("clusterrolebindings"), *cluster.objects("rolebindings", "--all-namespaces")]
    rights: set[Right] = set()
    for binding in bound:
        if {"kind": "ServiceAccount", "name": rig.account, "namespace": NAMESPACE} in binding.get("subjects", ()):
            place = ("-n", binding["metadata"]["namespace"]) if binding["roleRef"]["kind"] == "Role" else ()
            role = cluster.get(binding["roleRef"]["kind"], binding["roleRef"]["name"], *place)
            rights |= {right for rule in role["rules"] for right in product(rule["verbs"], rule["resources"])}
    return rights


def used(cluster: Cluster, user: str) -> set[Right]:
    """What the user has called and was allowed to; a PATCH that was answered by 201 has created."""
    calls = [call for call in requests(cluster.control_plane.audit_log, user) if call.is_allowed]
    made = {("create", call.resource) for call in calls if (call.verb, call.code) == ("patch", 201)}
    return made | {(call.verb, call.resource) for call in calls}


def stray(child: Object) -> Object:
    """Another object of a child's kind that the service controls too, as a former version could have left it."""
    metadata = {key: child["metadata"][key] for key in ("namespace", "labels", "ownerReferences")}
    spec = {key: value for key, value in child.get("spec", {}).items() if key not in SERVER_SET}
    return {**child, "metadata": {**metadata, "name": "stray"}, "spec": spec, "status": {}}


def foreign(child: Object, name: str) -> Object:
    """Somebody else's object of a child's kind."""
    spec = {key: value for key, value in child.get("spec", {}).items() if key not in SERVER_SET}
    metadata = {"name": name, "namespace": child["metadata"]["namespace"]}
    return {**child, "metadata": metadata, "spec": {**spec, "replicas": 0}, "status": {}}


def make_ready(rig: Rig, name: str) -> None:
    """Say of pods that never ran that they are ready, as a kubelet would, and dear: their costs have to be written."""

    def ready() -> bool:
        for pod in rig.cluster.objects("pods", "-n", rig.name, "-l", f"{SELECTOR}={name}"):
            pod_name = pod["metadata"]["name"]
            rig.patch("Pod", pod_name, {"metadata": {"annotations": {ANNOTATION: "9"}}})
            rig.patch("Pod", f"{pod_name}/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        found = rig.get("InferenceService", name) or {}
        return bool(found.get("status", {}).get("readyReplicas") == 2)

    rig.cluster.eventually(ready, f"two replicas of {name} are ready")


@pytest.mark.usefixtures("keda")
@pytest.mark.parametrize("mode", ["private", "public"])
def test_every_right_is_used_and_none_is_lacking(mode: str, request: pytest.FixtureRequest) -> None:
    """Children of every kind are made, mended and pruned; the audit log and the roles then say the same."""
    began = datetime.now(UTC)
    rig: Rig = request.getfixturevalue(mode)
    cluster = rig.cluster
    rig.apply("two", replicas=2, autoscaling={"maxReplicas": 2, "provider": "hpa"})
    rig.apply("keda", autoscaling={"maxReplicas": 2, "provider": "keda"})
    kinds = [*CHILDREN, "ScaledObject"]
    places = {kind: "keda" if kind == "ScaledObject" else "two" for kind in kinds}
    places["PersistentVolumeClaim"] = "two-models"
    for kind, name in places.items():
        child = cluster.eventually(lambda kind=kind, name=name: rig.get(kind, name), f"{kind} {name}")
        rig.create(kind, stray(child))
        rig.create(kind, foreign(child, HELD[kind]))
        rig.patch(kind, name, {"metadata": {"labels": {LABEL: "mine"}}})
    make_ready(rig, "two")
    rig.edit("two", replicas=1)
    rig.apply("held", autoscaling={"maxReplicas": 2, "provider": "hpa"})
    rig.apply("held-keda", autoscaling={"maxReplicas": 2, "provider": "keda"})
    rig.apply("needy")
    for name in ("held", "held-keda", "needy"):
        cluster.eventually(lambda name=name: rig.ready(name).get("reason") == "NameConflict", f"{name} has none of it")
    for kind in places:
        cluster.eventually(lambda kind=kind: rig.get(kind, "stray") is None, f"the stray {kind} is pruned")
    cluster.eventually(lambda: rig.get("Deployment", "two")["spec"]["replicas"] == 1, "two gave up a replica")
    rig.strike(rig.proxy.cut)  # a watch is recorded when it ends
    wanted = granted(cluster, rig) - UNSEEN
    with suppress(TimeoutError):
        cluster.eventually(lambda: used(cluster, rig.user) >= wanted, "every right was used", seconds=10)
    unused = wanted - used(cluster, rig.user)
    assert not unused, f"rights that nobody needs: {sorted(unused)}"
    calls = requests(cluster.control_plane.audit_log, rig.user, since=began)
    denied = [str(call) for call in calls if not call.is_allowed]
    assert denied == [], "rights that are lacking"
    for kind, name in places.items():
        cluster.eventually(
            lambda kind=kind, name=name: rig.get(kind, name)["metadata"]["labels"][LABEL] == "pagoda",
            f"{kind} is mended",
        )


GROUPS = {"deployments": "apps"}
"""Of the resources that rights are taken of; else it is the core group."""


def take(rig: Rig, verb: str, resource: str) -> Object:
    """Take a right out of the namespaced rig's Role; returns the Role as it was."""
    place = ("-n", rig.name)
    (role,) = [r for r in rig.cluster.objects("roles", *place) if r["metadata"]["name"].endswith(ACCOUNT)]
    rules = []
    for rule in role["rules"]:
        others = [r for r in rule["resources"] if r != resource]
        rules.append({**rule, "resources": others})
        if resource in rule["resources"]:
            rules.append({**rule, "resources": [resource], "verbs": [v for v in rule["verbs"] if v != verb]})
    kept = [rule for rule in rules if rule["resources"] and rule["verbs"]]
    metadata = {key: role["metadata"][key] for key in ("name", "namespace", "labels")}
    rig.cluster.apply({**role, "metadata": metadata, "rules": kept})
    rig.cluster.eventually(lambda: not may(rig, verb, resource), f"the API server knows that {verb} is not allowed")
    return {**role, "metadata": metadata}


def may(rig: Rig, verb: str, resource: str) -> bool:
    """What `kubectl auth can-i` says of the operator."""
    where = {"namespace": rig.name, "verb": verb, "group": GROUPS.get(resource, ""), "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": rig.user, "resourceAttributes": where},
    }
    created = rig.cluster.run(rig.cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review))
    return bool(created["status"]["allowed"])


@pytest.mark.parametrize(
    ("verb", "resource", "reason"),
    [("create", "deployments", "Refused"), ("patch", "services", "Refused"), ("list", "pods", "ClusterUnreadable")],
)
def test_a_right_that_lacks_is_named_in_the_status(private: Rig, verb: str, resource: str, reason: str) -> None:
    """The API server's own sentence says which, and the work is done once it is given back."""
    if verb == "patch":
        private.apply("poor")
        private.converge()
    role = take(private, verb, resource)
    try:
        if verb == "list":
            private.operator.send(signal.SIGKILL)
        private.apply("poor")
        private.patch("Service", "poor", {"metadata": {"labels": {LABEL: "mine"}}})
        told = private.cluster.eventually(
            lambda: private.ready("poor").get("reason") == reason and private.ready("poor"), reason, seconds=90
        )
        assert f'cannot {verb} resource "{resource}"' in told["message"]
    finally:
        private.cluster.apply(role)
    private.converge(seconds=90)
    private.delete("InferenceService", "poor")
    private.vanish()
