"""What every pod promises: to its users, to the kubelet, and to the Pod Security admission."""

import dataclasses

import pytest

from pagoda_engine.contract import EngineArgs
from pagoda_operator.core.settings import Settings


@pytest.fixture(params=["smollm2", "qwen"])
def case(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def pod(case, children):
    return children(*case)["Deployment"]["spec"]["template"]["spec"]


def containers(pod):
    return [*pod["initContainers"], *pod["containers"]]


def test_pods_pass_the_restricted_standard(pod):
    """kubernetes.io/docs/concepts/security/pod-security-standards, `restricted`, control by control."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    allowed = {"persistentVolumeClaim", "emptyDir"}
    assert all(volume.keys() - {"name"} <= allowed for volume in pod["volumes"])
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "privileged" not in context
        assert all("hostPort" not in port for port in container.get("ports", []))


def test_the_cache_is_written_by_the_user_that_runs_and_not_chowned_at_every_start(pod):
    context = pod["securityContext"]
    assert context["fsGroup"] == context["runAsUser"] == context["runAsGroup"]
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"


def test_pods_hold_no_token_of_the_cluster(pod):
    assert pod["automountServiceAccountToken"] is False


def test_the_engine_understands_its_arguments(case, pod):
    """What the operator writes, the engine's own parser reads back."""
    service, _, settings = case
    command, *argv = pod["containers"][0]["args"]
    assert command == "serve"
    args = EngineArgs.from_argv(argv)
    assert args.model == service["spec"]["model"]["uri"]
    assert (args.host, args.port, args.download_dir) == (settings.bind_host, settings.engine_port, "/models")
    assert args.tensor_parallel_size == service["spec"].get("parallelism", {}).get("tensor", 1)


def test_the_grace_period_holds_the_drain_and_the_streams_and_a_margin(case, pod):
    args = EngineArgs.from_argv(pod["containers"][0]["args"][1:])
    assert args.drain_delay + args.shutdown_timeout + 5 <= pod["terminationGracePeriodSeconds"]
    asked = case[0]["spec"].get("terminationGracePeriodSeconds")
    assert asked in (None, pod["terminationGracePeriodSeconds"])


@pytest.mark.parametrize(
    ("grace", "delay", "streams"), [(None, 10, 580), (120, 10, 100), (40, 10, 20), (20, 5, 10), (5, 1.2, 2.5)]
)
def test_streams_have_what_proxies_and_the_margin_leave_and_half_at_least(smollm2, children, grace, delay, streams):
    """By default ten minutes in all, cluster-autoscaler's longest; in a short grace period all parts shrink."""
    service, facts, settings = smollm2
    service["spec"] |= {} if grace is None else {"terminationGracePeriodSeconds": grace}
    pod = children(service, facts, settings)["Deployment"]["spec"]["template"]["spec"]
    args = EngineArgs.from_argv(pod["containers"][0]["args"][1:])
    assert (args.drain_delay, args.shutdown_timeout) == (delay, streams)
    assert pod["terminationGracePeriodSeconds"] == (grace or 600)


@pytest.mark.parametrize(("grace", "expected"), [(None, 30), (86400, 30), (5, 5)])
def test_an_engine_that_is_stuck_is_not_waited_for(smollm2, children, grace, expected):
    """The liveness probe's own grace period: there are no streams to end, and requests wait for the restart."""
    service, facts, settings = smollm2
    service["spec"] |= {} if grace is None else {"terminationGracePeriodSeconds": grace}
    pod = children(service, facts, settings)["Deployment"]["spec"]["template"]["spec"]
    (engine,) = pod["containers"]
    assert engine["livenessProbe"]["terminationGracePeriodSeconds"] == expected
    assert "terminationGracePeriodSeconds" not in engine["readinessProbe"], "the API server would refuse it"


@pytest.mark.parametrize("grace", [5, 30, 79, 80, 81, 86400])
def test_any_grace_period_is_shared_out_without_a_negative_part(smollm2, children, grace):
    service, facts, settings = smollm2
    service["spec"]["terminationGracePeriodSeconds"] = grace
    pod = children(service, facts, settings)["Deployment"]["spec"]["template"]["spec"]
    args = EngineArgs.from_argv(pod["containers"][0]["args"][1:])
    assert pod["terminationGracePeriodSeconds"] == grace
    assert args.drain_delay > 0
    assert args.shutdown_timeout > 0
    assert args.drain_delay + args.shutdown_timeout < grace


def test_the_token_is_given_by_reference_and_only_to_who_fetches(qwen, children):
    pod = children(*qwen)["Deployment"]["spec"]["template"]["spec"]
    (model,), (engine,) = pod["initContainers"], pod["containers"]
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert token in model["env"]
    assert all(variable["name"] != "HF_TOKEN" for variable in engine["env"])


def test_a_variable_of_the_spec_replaces_the_operator_s_and_no_name_stands_twice(smollm2, children):
    service, facts, _ = smollm2
    service["spec"]["engine"] = {"env": [{"name": "HTTPS_PROXY", "value": "mine"}, {"name": "HOME", "value": "/x"}]}
    settings = Settings(engine_env=({"name": "HTTPS_PROXY", "value": "theirs"},))
    pod = children(service, facts, settings)["Deployment"]["spec"]["template"]["spec"]
    env = pod["containers"][0]["env"]
    names = [variable["name"] for variable in env]
    assert names == ["POD_IP", "HOME", "HTTPS_PROXY"]
    assert [variable.get("value") for variable in env[1:]] == ["/x", "mine"]


def test_gpus_are_asked_for_on_nodes_of_the_class_that_was_planned(qwen, children):
    pod = children(*qwen)["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"zone": "a", "nvidia.com/gpu.product": "Tesla-T4"}
    keys = [toleration["key"] for toleration in pod["tolerations"]]
    assert keys == ["nvidia.com/gpu", "team"]


def test_no_gpu_is_asked_for_or_tolerated_on_a_cpu(smollm2, children):
    pod = children(*smollm2)["Deployment"]["spec"]["template"]["spec"]
    assert "limits" not in pod["containers"][0]["resources"]
    assert "tolerations" not in pod
    assert "nodeSelector" not in pod


def test_a_limit_of_the_spec_is_never_below_the_planner_s_request(qwen, children):
    """memory is limited and not requested by this spec: the API server makes the limit the request."""
    resources = children(*qwen)["Deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "4"}
    assert resources["limits"]["memory"] == "64Gi"


def test_replicas_share_a_node_where_their_cache_can_t_be_elsewhere(smollm2, qwen, children):
    pod = children(*smollm2)["Deployment"]["spec"]["template"]["spec"]
    (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"] == {"pagoda.dev/service": "smollm2"}
    assert "affinity" not in children(*qwen)["Deployment"]["spec"]["template"]["spec"]


def test_a_local_address_is_left_for_the_runtime_to_expand(smollm2, children):
    service, facts, settings = smollm2
    settings = dataclasses.replace(settings, bind_host="$(POD_IP)", local=True)
    pod = children(service, facts, settings)["Deployment"]["spec"]["template"]["spec"]
    assert all("$(POD_IP)" in container["args"] for container in containers(pod))
    assert all(container["env"][0]["name"] == "POD_IP" for container in containers(pod))


def test_every_mount_has_its_volume_and_every_volume_a_mount(pod):
    mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
