"""The operator's permissions are a list, and the list is short.

The tables below say what the code calls; `make e2e` runs the operator with the chart's own token and nothing more, so a
verb that is missing here fails there, and a verb that is too many fails here.
"""

from __future__ import annotations

from itertools import product

import pytest

from pagoda_operator.cluster import resources
from pagoda_operator.commands.operator import LEASE_NAME

READ = {"get", "list", "watch"}
FOLLOW = {"list", "watch"}
OWN = READ | {"create", "patch", "delete"}

SERVED = {
    str(resources.INFERENCE_SERVICE): FOLLOW,
    "inferenceservices/status.pagoda.dev": {"patch"},
    "inferenceservices/finalizers.pagoda.dev": {"update"},
    **{str(child): OWN for child in resources.CHILDREN},
    str(resources.POD): FOLLOW | {"patch"},
    str(resources.EVENT): {"create"},
}
"""In every namespace that is served."""

CLUSTER = {str(resources.NODE): FOLLOW}
LEASE = {str(resources.LEASE): {"create", "get", "update"}}


def permissions(role):
    """{resource.group: verbs} of a role."""
    granted = {}
    for rule in role["rules"]:
        for group, resource in product(rule["apiGroups"], rule["resources"]):
            granted.setdefault(f"{resource}.{group}" if group else resource, set()).update(rule["verbs"])
    return granted


def test_a_cluster_wide_operator_has_exactly_this(release):
    """One ClusterRole for all it serves, one Role for its Lease."""
    rendered = release({"rbac": {"aggregate": False}})
    assert permissions(rendered.one("ClusterRole")) == {**SERVED, **CLUSTER}
    assert permissions(rendered.one("Role")) == LEASE


def test_a_namespaced_operator_reads_only_nodes_elsewhere(release):
    """A Role in each watched namespace, and cluster-wide nothing but Nodes, which have no namespace."""
    rendered = release({"watchNamespaces": ["a", "b"], "rbac": {"aggregate": False}})
    assert permissions(rendered.one("ClusterRole")) == CLUSTER
    roles = {role["metadata"]["namespace"]: permissions(role) for role in rendered.of("Role")}
    assert roles == {"a": SERVED, "b": SERVED, "system": LEASE}


@pytest.mark.parametrize("namespaces", [[], ["a"]])
def test_secrets_are_read_only_where_asked(release, namespaces):
    """`rbac.modelSecrets` adds `get`, and `rbac.modelSecretNames` narrows it; `list` would show every Secret."""

    def secret_rules(**rbac):
        rendered = release({"watchNamespaces": namespaces, "rbac": {"aggregate": False, **rbac}})
        rules = [rule for kind in ("ClusterRole", "Role") for role in rendered.of(kind) for rule in role["rules"]]
        return [rule for rule in rules if "secrets" in rule["resources"]]

    everything = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    assert secret_rules() == []
    assert secret_rules(modelSecretNames=["hf"]) == []
    assert secret_rules(modelSecrets=True) == [everything]
    assert secret_rules(modelSecrets=True, modelSecretNames=["hf"]) == [{**everything, "resourceNames": ["hf"]}]


def test_only_its_own_lease(release):
    """`create` can't be limited to a name; reading and updating are, to the operator's one name."""
    create, use = release().one("Role")["rules"]
    assert create["verbs"] == ["create"]
    assert use["resourceNames"] == [LEASE_NAME]


EXTERNAL = "pagoda-external-metrics"
EXTERNAL_CLUSTER = {
    "apiservices.apiregistration.k8s.io": {"create", "get", "patch"},
    "clusterroles.rbac.authorization.k8s.io": {"get"},
}


def test_external_metrics_add_the_least_that_serves_them(release):
    """One APIService by name, one Secret by name, the ClusterRole that owns the former, and whom to trust."""
    rendered = release({"externalMetrics": {"enabled": True}, "rbac": {"aggregate": False}})
    role = rendered.one("ClusterRole", f"system-{EXTERNAL}")
    assert permissions(role) == EXTERNAL_CLUSTER
    names = [(rule["verbs"], rule.get("resourceNames")) for rule in role["rules"]]
    assert names == [
        (["create"], None),
        (["get", "patch"], ["v1beta1.external.metrics.k8s.io"]),
        (["get"], [f"system-{EXTERNAL}"]),
    ]
    secret = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [EXTERNAL], "verbs": ["get", "update"]}
    assert rendered.one("Role", EXTERNAL)["rules"] == [secret]
    (reader,) = [b for b in rendered.of("RoleBinding") if b["metadata"]["namespace"] == "kube-system"]
    assert reader["roleRef"]["name"] == "extension-apiserver-authentication-reader"
    assert [subject["namespace"] for subject in reader["subjects"]] == ["system"]


def test_external_metrics_leave_nothing_of_theirs_behind_when_they_are_off(release):
    """The ClusterRole that owns the APIService goes, and with it, by garbage collection, the APIService."""
    assert not [o for o in release().objects if "external" in o["metadata"]["name"]]


def test_no_rule_has_a_wildcard(release):
    """A `*` grants what nobody wrote down."""
    rendered = release({"rbac": {"modelSecrets": True}})
    for role in [*rendered.of("ClusterRole"), *rendered.of("Role")]:
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"]}, {"serviceAccount": {"name": "robot"}}])
def test_every_role_is_bound_to_the_operators_account(release, values):
    """Each role of the operator has one binding, in its own namespace, to the ServiceAccount that the pod runs as."""
    rendered = release({**values, "rbac": {"aggregate": False}})
    account = rendered.one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    assert account == rendered.one("ServiceAccount")["metadata"]["name"]
    for kind in ("ClusterRole", "Role"):
        roles = {(r["metadata"].get("namespace"), r["metadata"]["name"]) for r in rendered.of(kind)}
        bindings = rendered.of(f"{kind}Binding")
        assert roles == {(b["metadata"].get("namespace"), b["roleRef"]["name"]) for b in bindings}
        assert len(bindings) == len(roles)
        for binding in bindings:
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "system"}]


def test_users_of_a_namespace_can_use_it(release):
    """view reads; edit and admin also write and scale; nobody but the operator writes status."""
    roles = {role["metadata"]["name"]: role for role in release({"rbac": {"create": False}}).of("ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"

    def allowed(user):
        merged = {}
        for role in roles.values():
            if role["metadata"]["labels"].get(prefix + user) == "true":
                for resource, verbs in permissions(role).items():
                    merged.setdefault(resource, set()).update(verbs)
        return merged

    services, scale, status = (f"inferenceservices{s}.pagoda.dev" for s in ("", "/scale", "/status"))
    assert allowed("view") == {services: READ, scale: READ, status: READ}
    writer = {
        services: READ | {"create", "update", "patch", "delete", "deletecollection"},
        scale: READ | {"update", "patch"},
        status: READ,
    }
    assert allowed("edit") == writer
    assert allowed("admin") == writer
