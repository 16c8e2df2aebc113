"""What the chart makes of its values."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from pagoda_engine.contract import ENGINE_PORT_NAME, METRICS_PATH
from pagoda_operator.commands.operator import parser
from pagoda_operator.core.settings import Settings

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "pagoda"
CRD = "pagoda.dev_inferenceservices.yaml"

ODD_VALUES = {
    "everything off": {
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "theirs"},
        "resources": {},
        "engine": {"tolerations": [], "env": []},
        "replicas": 0,
    },
    "everything on": {
        "image": {"repository": "r.example:5000/a/b", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "engine": {
            "image": "r.example/engine@sha256:" + "1" * 64,
            "env": [{"name": "A", "value": "x: 'y' # \"z\""}],
            "tolerations": [{"operator": "Exists"}],
            "drainDelay": 2.5,
        },
        "hfEndpoint": "https://mirror.example/hf",
        "prometheusAddress": "http://prometheus.monitoring:9090",
        "externalMetrics": {"enabled": True},
        "networkPolicy": {"enabled": True, "activation": [{"podSelector": {}}]},
        "replicas": 3,
        "watchNamespaces": ["a", "b"],
        "rbac": {"modelSecrets": True, "modelSecretNames": ["hf-token"]},
        "serviceAccount": {"name": "robot", "annotations": {"a": "1"}},
        "logFormat": "json",
        "logLevel": "debug",
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "podAnnotations": {"a": "true"},
        "podLabels": {"b": "2"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"p": "q"}}, "podMonitor": {"enabled": True}},
    },
    "long names": {"fullnameOverride": "x" * 80, "nameOverride": "y" * 80},
}


def test_lint_finds_nothing(helm):
    """`helm lint --strict` passes; its advice to add an icon is all that it says."""
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line for line in result.stdout.splitlines() if line.startswith(("[WARNING]", "[ERROR]"))] == []


@pytest.mark.parametrize("values", ODD_VALUES.values(), ids=ODD_VALUES.keys())
def test_odd_values_render_objects_that_are_whole(release, values):
    """Every object has type and a valid name, no name twice, and the chart's labels."""
    objects = release(values).objects
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names))
    for o in objects:
        assert o["apiVersion"]
        assert re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?", o["metadata"]["name"])
        assert o["metadata"]["labels"]["helm.sh/chart"] == "pagoda-0.1.0"
        assert o["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert all(len(value) <= 63 for value in o["metadata"]["labels"].values())


def test_defaults_make_only_what_the_operator_needs(release):
    """One Service, for KEDA's triggers; no monitor, nothing of another project's API groups."""
    assert sorted({o["kind"] for o in release().objects}) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ]


def test_default_settings_are_the_codes_own_defaults(release):
    """A fresh install and `Settings()` agree in every key, so that chart and code have one set of defaults.

    But for the address at which the operator serves: only the chart knows it.
    """
    fresh = Settings.from_document(yaml.safe_load(release().settings))
    assert fresh == dataclasses.replace(Settings(), scaler_address=fresh.scaler_address)


def test_keda_is_told_where_the_operator_serves(release):
    """The setting names Service, namespace and port; both lead to the operator's --scaler-port. Off, all of it goes."""
    rendered = release({"metrics": {"serviceMonitor": {"enabled": True}}})
    host, port = yaml.safe_load(rendered.settings)["scalerAddress"].split(":")
    (service,) = [one for one in rendered.of("Service") if one["spec"]["ports"][0]["port"] == int(port)]
    assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}"
    assert service["spec"]["selector"] == rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    ports = {one["name"]: one["containerPort"] for one in rendered.container["ports"]}
    assert f"--scaler-port={ports[service['spec']['ports'][0]['targetPort']]}" in rendered.container["args"]
    off = release({"scaler": {"enabled": False}})
    assert yaml.safe_load(off.settings)["scalerAddress"] == ""
    assert not off.of("Service")
    assert not any("scaler" in argument for argument in off.container["args"])


def test_settings_reach_the_operator_as_they_were_written(release, tmp_path):
    """Values survive YAML in YAML, quotes and colons included, and `Settings.load` accepts the mounted file."""
    values = ODD_VALUES["everything on"]
    file = tmp_path / "settings.yaml"
    file.write_text(release(values).settings)
    settings = Settings.load(file)
    assert settings.engine_image == values["engine"]["image"]
    assert settings.engine_env == (
        {"name": "HF_ENDPOINT", "value": "https://mirror.example/hf"},
        {"name": "A", "value": "x: 'y' # \"z\""},
    )
    assert settings.tolerations == ({"operator": "Exists"},)
    assert settings.drain_delay == 2.5
    assert settings.prometheus_address == "http://prometheus.monitoring:9090"


def test_new_settings_restart_the_operator(release):
    """The pod template changes with the settings and with nothing else."""

    def template(values):
        return release(values).one("Deployment")["spec"]["template"]

    assert template({}) == template({"rbac": {"aggregate": False}})
    assert template({}) != template({"engine": {"drainDelay": 11}})


def test_the_operator_is_restricted(release):
    """The pod passes the `restricted` Pod Security Standard, and more: a read-only root and no group of root."""
    pod = release().one("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
    assert {"configMap", "emptyDir"} >= {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "pagoda-operator:0.1.0"),
        ({"tag": "v9"}, "pagoda-operator:v9"),
        ({"tag": "v9", "digest": "sha256:" + "a" * 64}, "pagoda-operator@sha256:" + "a" * 64),
        ({"repository": "r.example:5000/x"}, "r.example:5000/x:0.1.0"),
    ],
)
def test_image_is_digest_before_tag_before_app_version(release, image, expected):
    """A digest wins, then a tag, then the chart's own version."""
    assert release({"image": image}).container["image"] == expected


def test_values_that_are_not_set_leave_no_trace(release):
    """Defaults render no empty affinity, tolerations, selectors or pull secrets."""
    pod = release().one("Deployment")["spec"]["template"]["spec"]
    assert not {"affinity", "tolerations", "nodeSelector", "imagePullSecrets", "priorityClassName"} & pod.keys()


def test_two_releases_share_no_cluster_scoped_name(helm, release):
    """Cluster-scoped roles carry the namespace; only the CRD is one for all."""
    first = {o["metadata"]["name"] for kind in ("ClusterRole", "ClusterRoleBinding") for o in release().of(kind)}
    result = helm("template", "pagoda", str(CHART), "--namespace", "other", "--set", "crds.enabled=false")
    second = {
        o["metadata"]["name"]
        for o in yaml.safe_load_all(result.stdout)
        if o and o["kind"] in ("ClusterRole", "ClusterRoleBinding")
    }
    assert first
    assert second
    assert not first & second


def test_crd_is_the_generated_one(release):
    """The chart's file is a byte-for-byte copy of crds/ (`make crd` writes both), and rendering only adds metadata."""
    generated = (REPOSITORY / "crds" / CRD).read_bytes()
    assert (CHART / "files" / CRD).read_bytes() == generated, "run `make crd`"
    rendered = release().one("CustomResourceDefinition")
    assert rendered["spec"] == yaml.safe_load(generated)["spec"]
    assert rendered["metadata"]["name"] == yaml.safe_load(generated)["metadata"]["name"]


def test_crd_outlives_the_release_unless_told_otherwise(release):
    """Uninstalling deletes no InferenceService by default."""
    assert release().one("CustomResourceDefinition")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in release({"crds": {"keep": False}}).one("CustomResourceDefinition")["metadata"]


def test_monitors_look_where_metrics_are(release):
    """The PodMonitor names the port and path of the contract; the ServiceMonitor finds its Service."""
    rendered = release({"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}})
    endpoint = rendered.one("PodMonitor")["spec"]["podMetricsEndpoints"][0]
    assert (endpoint["port"], endpoint["path"]) == (ENGINE_PORT_NAME, METRICS_PATH)
    monitor = rendered.one("ServiceMonitor")["spec"]
    (service,) = [one for one in rendered.of("Service") if one["metadata"]["name"].endswith("-metrics")]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"] == rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in rendered.container["ports"]}


@pytest.mark.parametrize("values", [{}, *ODD_VALUES.values()], ids=["defaults", *ODD_VALUES.keys()])
def test_the_operator_understands_its_arguments(release, values):
    """The container's args are a command that `pagoda operator` itself parses, to the values that were given."""
    command, *arguments = release(values).container["args"]
    assert command == "operator"
    options = parser().parse_args(arguments)
    assert options.namespace == values.get("watchNamespaces", [])
    assert options.log_level == values.get("logLevel", "info")
    assert options.log_format == values.get("logFormat", "text")
    assert options.leader_elect is True
    assert options.settings == Path("/etc/pagoda/settings.yaml")


def test_probes_ask_the_health_port(release):
    """The port that the operator is told to listen on is the port that its probes and its Service name."""
    container = release().container
    options = parser().parse_args(container["args"][1:])
    assert {"name": "health", "containerPort": options.health_port} in container["ports"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"], "crds": {"enabled": False}}])
def test_notes_name_the_next_command(helm, values, tmp_path):
    """NOTES.txt renders, names the namespace to use, and its example is an InferenceService."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    result = helm("install", "pagoda", str(CHART), "--dry-run=client", "--namespace", "system", "--values", str(file))
    assert result.returncode == 0, result.stderr
    notes = result.stdout.partition("NOTES:")[2]
    assert "rollout status deployment/pagoda" in notes
    example = yaml.safe_load(re.search(r"<<END\n(.*?)\n  END", notes, re.DOTALL)[1])
    assert example["kind"] == "InferenceService"
    assert ("--namespace a apply" in notes) is bool(values)


def test_external_metrics_are_where_the_operator_says_they_are(release):
    """Flags, Service, Secret and owner are of one name, and the Service's port ends at the container's."""
    rendered = release({"externalMetrics": {"enabled": True}})
    flags = dict(arg.removeprefix("--").split("=", 1) for arg in rendered.container["args"] if "=" in arg)
    name = flags["external-metrics-service"]
    (port,) = rendered.one("Service", name)["spec"]["ports"]
    listening = {p["name"]: p["containerPort"] for p in rendered.container["ports"]}
    assert port["port"] == 443
    assert listening[port["targetPort"]] == int(flags["external-metrics-port"])
    assert "data" not in rendered.one("Secret", name), "an upgrade would empty what the operator keeps there"
    assert rendered.one("ClusterRole", flags["external-metrics-owner"])
    assert yaml.safe_load(rendered.settings)["externalMetrics"] is True


def test_an_api_service_is_never_the_charts(release):
    """Helm can't install an object that somebody else has made; the operator looks first."""
    assert not release({"externalMetrics": {"enabled": True}}).of("APIService")


KEDA = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
GATEWAY = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({}, {9443: [KEDA]}, id="by default KEDA alone"),
        pytest.param({"networkPolicy": {"activation": [GATEWAY]}}, {8080: [GATEWAY], 9443: [KEDA]}, id="and a gateway"),
        pytest.param({"networkPolicy": {"scaler": []}}, {}, id="an empty list is nobody and not everybody"),
        pytest.param({"scaler": {"enabled": False}}, {}, id="nobody on a port that is not open"),
        pytest.param(
            {"externalMetrics": {"enabled": True}}, {9443: [KEDA], 8443: None}, id="the API server has no label"
        ),
    ],
)
def test_a_network_policy_lets_in_whom_the_values_name(release, values, expected):
    """Off unless asked for. By port of the container: the peers that reach it, None for everybody."""
    assert not release(values).of("NetworkPolicy")
    rendered = release({**values, "networkPolicy": {**values.get("networkPolicy", {}), "enabled": True}})
    spec = rendered.one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    deployment = rendered.one("Deployment")["spec"]
    assert spec["podSelector"] == deployment["selector"]
    ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
    rules = spec["ingress"] or []
    assert all("from" not in rule or rule["from"] for rule in rules), "without peers a rule is for everybody"
    assert {ports[port["port"]]: rule.get("from") for rule in rules for port in rule["ports"]} == expected
