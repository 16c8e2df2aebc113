"""ScalingReady says who sets the replicas, or who fails at what, and the way out."""

import dataclasses

import pytest

KEDA = frozenset({"ScaledObject"})
TAKEN = "Service keda/keda-operator-metrics-apiserver"


def condition(type_, status, reason="", message=""):
    return {"type": type_, "status": status, "reason": reason, "message": message}


def no_adapter():
    """As the HPA controller says it."""
    message = (
        "the HPA was unable to compute the replica count: unable to get metric vllm:num_requests_waiting: unable to "
        "fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
    )
    return condition("ScalingActive", "False", "FailedGetPodsMetric", message)


HPA_SAYS = {
    "nothing yet": (None, "Unknown", "ScalerStarting", "has not reported"),
    "it works": (
        [condition("AbleToScale", "True"), condition("ScalingActive", "True", "ValidMetricFound")],
        "True",
        "Automatic",
        "a HorizontalPodAutoscaler sets 1 to 2 replicas by custom.metrics.k8s.io",
    ),
    "no adapter": ([no_adapter()], "False", "AdapterAbsent", "install prometheus-adapter with the rule"),
    "no such metric": (
        [
            condition(
                "ScalingActive",
                "False",
                "FailedGetPodsMetric",
                "the HPA was unable to compute the replica count: unable to get metric vllm:num_requests_waiting: no "
                "metrics returned from custom metrics API",
            )
        ],
        "False",
        "MetricsMissing",
        "no metrics returned from custom metrics API; see that its adapter has the rule",
    ),
    "no replicas": (
        [condition("ScalingActive", "False", "ScalingDisabled", "the replica count of the target is zero")],
        "False",
        "ScaledToZero",
        "kubectl scale infsvc smollm2 --replicas=1",
    ),
    "no target": (
        [condition("AbleToScale", "False", "FailedGetScale", "the target's scale is forbidden")],
        "False",
        "ScalerNotReady",
        "FailedGetScale: the target's scale is forbidden",
    ),
}

KEDA_SAYS = {
    "nothing yet": (None, "Unknown", "ScalerStarting", "kubectl get pods -A -l app=keda-operator"),
    "only begun": (
        [condition("Ready", "Unknown"), condition("Active", "Unknown"), condition("Paused", "False")],
        "Unknown",
        "ScalerStarting",
        "KEDA has not reported",
    ),
    "it works": (
        [
            condition("Ready", "True", "ScaledObjectReady"),
            condition("Fallback", "False", "NoFallbackFound"),
            condition("HPAActive", "True", "HPAActive"),
        ],
        "True",
        "Automatic",
        "KEDA sets 1 to 2 replicas by Prometheus",
    ),
    "at zero": (
        [condition("Ready", "True"), condition("HPAActive", "True", "ScalingDisabled")],
        "True",
        "Automatic",
        "KEDA sets",
    ),
    "refused": (
        [condition("Ready", "False", "ScaledObjectCheckFailed", "the workload is already managed by the hpa 'mine'")],
        "False",
        "ScalerNotReady",
        "already managed by the hpa 'mine'",
    ),
    "no metrics": (
        [condition("Ready", "False", "TriggerError", "Triggers defined in ScaledObject are not working correctly")],
        "False",
        "MetricsMissing",
        "see that KEDA reaches the chart's prometheusAddress",
    ),
    "some metrics": (
        [condition("Ready", "Unknown", "PartialTriggerError", "Some triggers are not working correctly")],
        "Unknown",
        "MetricsMissing",
        "PartialTriggerError: Some triggers",
    ),
    "no metrics for its HPA": (
        [
            condition("Ready", "True"),
            condition(
                "HPAActive", "False", "FailedGetExternalMetric", "HPA is not actively scaling: the result is empty"
            ),
        ],
        "False",
        "MetricsMissing",
        "FailedGetExternalMetric: HPA is not actively scaling: the result is empty",
    ),
    "falling back": (
        [condition("Ready", "True"), condition("Fallback", "True", "FallbackExists")],
        "False",
        "FallingBack",
        "it removes no replica, and sees to spec.autoscaling.fallbackReplicas",
    ),
    "paused": (
        [condition("Ready", "True"), condition("Paused", "True", "ScaledObjectPaused")],
        "False",
        "Paused",
        "remove the annotation",
    ),
}


@pytest.mark.parametrize(("says", "status", "reason", "words"), HPA_SAYS.values(), ids=HPA_SAYS)
def test_what_an_hpa_says_is_passed_on_with_the_fix(world, says, status, reason, words):
    world.edit(autoscaling={"maxReplicas": 2}).run()
    world.child("HorizontalPodAutoscaler")["status"] = {"conditions": says}
    world.step()
    assert world.reason("ScalingReady") == (status, reason)
    assert words in world.condition("ScalingReady")["message"]
    assert world.reason() == ("True", "Serving"), "what scales it is not what serves"


@pytest.mark.parametrize(("says", "status", "reason", "words"), KEDA_SAYS.values(), ids=KEDA_SAYS)
def test_what_keda_says_is_passed_on_with_the_fix(world, says, status, reason, words):
    world.settings = dataclasses.replace(world.settings, prometheus_address="http://prometheus:9090")
    world.edit(autoscaling={"maxReplicas": 2}).given(served=KEDA).run()
    world.child("ScaledObject")["status"] = {"conditions": says}
    world.step()
    assert world.reason("ScalingReady") == (status, reason)
    assert words in world.condition("ScalingReady")["message"]
    assert world.reason() == ("True", "Serving"), "what scales it is not what serves"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (condition("Ready", "False", "TriggerError", "Triggers are not working correctly"), "MetricsMissing"),
        (condition("Fallback", "True", "FallbackExists"), "FallingBack"),
        (condition("Ready", "False", "ScaledObjectCheckFailed", "username is required"), "ScalerNotReady"),
    ],
)
def test_a_secret_that_prometheus_may_not_take_is_among_what_is_to_be_looked_at(world, says, reason):
    """To KEDA's conditions a wrong password, an absent one and silence are the same."""
    world.settings = dataclasses.replace(world.settings, prometheus_address="http://prometheus:9090")
    authentication = {"name": "mine", "modes": ["basic"]}
    scaling = {"maxReplicas": 2, "prometheusAuthentication": authentication}
    world.edit(autoscaling=scaling).given(served=KEDA).run()
    world.child("ScaledObject")["status"] = {"conditions": [says]}
    world.step()
    found = world.condition("ScalingReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    fix = "see that TriggerAuthentication mine exists, and holds what this Prometheus takes (basic)"
    assert fix in found["message"]


def told(world, autoscaling, *, served=frozenset(), holder="", **settings):
    world.settings = dataclasses.replace(world.settings, **settings)
    world.edit(autoscaling=autoscaling).given(served=served, external_metrics_holder=holder).run()
    return world.condition("ScalingReady")


def test_the_operators_own_metrics_that_nobody_reaches_are_told_with_the_api_servers_words(world):
    """The HPA controller only says that it got no metrics; the APIService says why, and the fact carries it."""
    world.settings = dataclasses.replace(world.settings, external_metrics=True)
    problem = "MissingEndpoints: no addresses"
    world.edit(autoscaling={"maxReplicas": 2}).given(external_metrics_problem=problem).run()
    assert world.reason("ScalingReady") == ("False", "ExternalMetricsUnavailable")
    message = world.condition("ScalingReady")["message"]
    assert problem in message
    assert "kubectl get apiservice v1beta1.external.metrics.k8s.io" in message


def test_keda_that_is_asked_for_and_absent_is_missed(world):
    told(world, {"maxReplicas": 2, "provider": "keda"}, prometheus_address="http://prometheus:9090")
    assert world.reason("ScalingReady") == ("False", "KedaAbsent")
    assert "install KEDA, or set provider to auto" in world.condition("ScalingReady")["message"]
    assert not {kind for kind, _ in world.facts.children} & {"ScaledObject", "HorizontalPodAutoscaler"}


def test_keda_without_anything_to_ask_is_told(world):
    found = told(world, {"maxReplicas": 2, "provider": "keda"}, served=KEDA)
    assert (found["status"], found["reason"]) == ("False", "NoMetricsSource")
    assert "set the chart's prometheusAddress, or scaler.enabled" in found["message"]


def test_external_metrics_of_somebody_else_are_left_to_him(world):
    """The HPA asks an adapter then, and the condition says whose the group is, whether there is an adapter or not."""
    told(world, {"maxReplicas": 2}, holder=TAKEN, external_metrics=True)
    hpa = world.child("HorizontalPodAutoscaler")
    assert [metric["type"] for metric in hpa["spec"]["metrics"]] == ["Pods", "Pods"]
    for says, reason in ((condition("ScalingActive", "True"), "Automatic"), (no_adapter(), "ExternalMetricsTaken")):
        hpa["status"] = {"conditions": [says]}
        world.step()
        assert world.condition("ScalingReady")["reason"] == reason
        assert f"external.metrics.k8s.io belongs to {TAKEN}" in world.condition("ScalingReady")["message"]


def test_external_metrics_of_the_operator_that_nobody_serves_are_told(world):
    told(world, {"maxReplicas": 2}, external_metrics=True)
    message = "unable to fetch metrics from external metrics API: the server could not find the requested resource"
    says = condition("ScalingActive", "False", "FailedGetExternalMetric", message)
    world.child("HorizontalPodAutoscaler")["status"] = {"conditions": [says]}
    world.step()
    assert world.reason("ScalingReady") == ("False", "ExternalMetricsAbsent")
    assert "kubectl get apiservice v1beta1.external.metrics.k8s.io" in world.condition("ScalingReady")["message"]


def test_a_scaler_s_place_that_is_taken_is_told(world):
    conflict = {("HorizontalPodAutoscaler", "smollm2"): "it was made by 'kubectl'"}
    world.edit(autoscaling={"maxReplicas": 2}).given(conflicts=conflict).step()
    assert world.reason("ScalingReady") == ("False", "NameConflict")


def test_a_scaler_that_the_api_server_refuses_is_told_in_its_words(world):
    refused = {("HorizontalPodAutoscaler", "smollm2"): "quota exceeded"}
    world.edit(autoscaling={"maxReplicas": 2}).given(refused=refused).step()
    assert world.reason("ScalingReady") == ("False", "Refused")
    assert "quota exceeded" in world.condition("ScalingReady")["message"]


def test_a_target_that_no_replica_reaches_is_told(world):
    found = told(world, {"maxReplicas": 2, "runningRequests": 1000})
    assert "runningRequests is 1000, and a replica runs at most 64" in found["message"]


def test_a_schedule_that_can_not_be_used_is_told_while_the_rest_goes_on(world):
    entry = {"start": "0 0 30 2 1", "end": "0 8 * * *", "timezone": "Mars/Olympus", "minReplicas": 2}
    world.edit(autoscaling={"maxReplicas": 2, "schedule": [entry]}).run()
    world.child("HorizontalPodAutoscaler")["status"] = {"conditions": [condition("ScalingActive", "True")]}
    world.step()
    assert world.reason("ScalingReady") == ("False", "ScheduleInvalid")
    message = world.condition("ScalingReady")["message"]
    assert "spec.autoscaling.schedule[0].timezone is 'Mars/Olympus'; use a name of the IANA database" in message
    assert "a HorizontalPodAutoscaler sets 1 to 2 replicas" in message
