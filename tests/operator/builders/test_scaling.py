"""Scalers ask for what the spec says, and write out what they would otherwise leave to others."""

import dataclasses

import pytest
import yaml

PROMETHEUS = "http://prometheus.example:9090"
SCALER = "pagoda-scaler.pagoda:9443"


@pytest.fixture
def scaler(qwen, children):
    """The scaler of a service with this `spec.autoscaling`, these settings and this status."""

    def make(autoscaling=None, *, keda=True, status=None, **settings):
        service, facts, defaults = qwen
        asked = {"maxReplicas": 4} | (autoscaling or {})
        service = {**service, "spec": {**service["spec"], "autoscaling": asked}, "status": status or {}}
        facts = dataclasses.replace(facts, served=frozenset({"ScaledObject"} if keda else ()))
        made = children(service, facts, dataclasses.replace(defaults, **{"prometheus_address": ""} | settings))
        (found,) = [made[kind]["spec"] for kind in ("ScaledObject", "HorizontalPodAutoscaler") if kind in made]
        return found

    return make


def kinds(found):
    return (
        [trigger["type"] for trigger in found["triggers"]]
        if "triggers" in found
        else [m["type"] for m in found["metrics"]]
    )


@pytest.mark.parametrize(
    ("provider", "keda", "settings", "asked"),
    [
        ("auto", True, {"prometheus_address": PROMETHEUS}, ["prometheus"] * 2),
        ("auto", True, {"prometheus_address": PROMETHEUS, "scaler_address": SCALER}, ["prometheus"] * 2),
        ("auto", True, {"scaler_address": SCALER}, ["external-push"] * 2),
        ("auto", True, {}, ["Pods"] * 2),
        ("auto", True, {"external_metrics": True}, ["External"] * 2),
        ("auto", False, {"prometheus_address": PROMETHEUS, "scaler_address": SCALER}, ["Pods"] * 2),
        ("auto", False, {"external_metrics": True}, ["External"] * 2),
        ("keda", True, {"scaler_address": SCALER, "external_metrics": True}, ["external-push"] * 2),
        ("hpa", True, {"prometheus_address": PROMETHEUS}, ["Pods"] * 2),
        ("hpa", True, {"prometheus_address": PROMETHEUS, "external_metrics": True}, ["External"] * 2),
    ],
)
def test_who_scales_and_by_whose_numbers(scaler, provider, keda, settings, asked):
    assert kinds(scaler({"provider": provider}, keda=keda, **settings)) == asked


def test_the_two_targets_are_the_spec_s_or_the_plan_s(scaler):
    """32 requests run at once in this plan, and 80 % of them is full."""

    def targets(autoscaling):
        return [trigger["metadata"]["target"] for trigger in scaler(autoscaling, scaler_address=SCALER)["triggers"]]

    assert targets({}) == ["5", "25"]
    assert targets({"waitingRequests": 2, "runningRequests": 16}) == ["2", "16"]


def test_triggers_name_the_service_and_the_metric(scaler):
    waiting, running = scaler({}, scaler_address=SCALER)["triggers"]
    metadata = {"scalerAddress": SCALER, "service": "qwen"}
    assert waiting["metadata"] == metadata | {"metric": "vllm:num_requests_waiting", "target": "5"}
    assert running["metadata"] == metadata | {"metric": "vllm:num_requests_running", "target": "25"}
    assert (waiting["name"], running["name"]) == ("waiting", "running")


def test_external_metrics_are_asked_for_by_the_service_s_label(scaler):
    metric = scaler({"provider": "hpa"}, external_metrics=True)["metrics"][0]["external"]
    assert metric["metric"] == {
        "name": "vllm:num_requests_waiting",
        "selector": {"matchLabels": {"pagoda.dev/service": "qwen"}},
    }
    assert metric["target"] == {"type": "AverageValue", "averageValue": "5"}


def test_from_zero_a_held_request_is_told_and_not_waited_for(scaler):
    """At zero only the operator knows of requests; a scrape and a poll would make them wait."""
    asked = {"minReplicas": 0, "provider": "keda", "idleSeconds": 60}
    both = scaler(asked, prometheus_address=PROMETHEUS, scaler_address=SCALER)
    assert [trigger["name"] for trigger in both["triggers"]] == ["waiting", "running", "activation"]
    assert kinds(both)[-1] == "external-push"
    assert (both["minReplicaCount"], both["cooldownPeriod"], both["initialCooldownPeriod"]) == (0, 60, 60)
    assert kinds(scaler(asked, prometheus_address=PROMETHEUS)) == ["prometheus"] * 2


def test_above_zero_keda_is_told_no_periods_that_it_would_warn_of(scaler):
    found = scaler({}, scaler_address=SCALER)
    assert found.keys() & {"pollingInterval", "cooldownPeriod", "initialCooldownPeriod", "fallback"} == set()


def test_a_fallback_never_removes_replicas(scaler):
    found = scaler({"fallbackReplicas": 3}, scaler_address=SCALER)
    assert found["fallback"] == {"failureThreshold": 3, "replicas": 3, "behavior": "currentReplicasIfHigher"}


@pytest.mark.parametrize(
    ("spec", "settings", "reference", "modes"),
    [
        ({}, {}, None, None),
        ({}, {"prometheus_authentication": "all"}, ("all", "ClusterTriggerAuthentication"), "bearer"),
        (
            {"name": "own", "modes": ["tls", "basic"]},
            {"prometheus_authentication": "all"},
            ("own", "TriggerAuthentication"),
            "tls,basic",
        ),
        ({"name": "pod-identity", "modes": []}, {}, ("pod-identity", "TriggerAuthentication"), None),
    ],
)
def test_keda_authenticates_by_the_service_s_way_or_the_administrator_s(scaler, spec, settings, reference, modes):
    asked = {"prometheusAuthentication": spec} if spec else {}
    for trigger in scaler(asked, prometheus_address=PROMETHEUS, **settings)["triggers"]:
        found = trigger.get("authenticationRef")
        assert (found and (found["name"], found["kind"])) == reference
        assert trigger["metadata"].get("authModes") == modes


@pytest.mark.parametrize("keda", [True, False])
def test_a_pace_that_the_spec_gives_is_passed_on_with_the_rest_of_the_defaults(scaler, keda):
    """Word for word autoscaling/v2, in the form that the API server gives back."""
    asked = {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "tolerance": "0.05"},
        "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Min"},
    }
    found = scaler(asked, keda=keda, scaler_address=SCALER)
    behaviour = found["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] if keda else found["behavior"]
    assert behaviour == yaml.safe_load("""
        scaleUp:
          stabilizationWindowSeconds: 0
          selectPolicy: Max
          policies: [{type: Pods, value: 1, periodSeconds: 60}]
          tolerance: 50m
        scaleDown:
          stabilizationWindowSeconds: 5
          selectPolicy: Min
          policies: [{type: Percent, value: 100, periodSeconds: 15}]
    """)


@pytest.mark.parametrize(
    ("seconds", "period"), [(None, 15), (3, 15), (15, 15), (16, 30), (61, 120), (900, 960), (1700, 1800), (9000, 1800)]
)
def test_by_prometheus_replicas_are_added_once_in_the_time_that_one_takes_to_start(scaler, seconds, period):
    """It can't tell that help is on its way; the operator's own numbers can, and are not slowed down."""
    status = {"scaling": {"coldStartSeconds": seconds}} if seconds else {}
    found = scaler({}, status=status, prometheus_address=PROMETHEUS)
    rules = found["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"]
    assert {policy["periodSeconds"] for policy in rules["policies"]} == {period}
    found = scaler({}, status=status, scaler_address=SCALER)
    rules = found["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"]
    assert {policy["periodSeconds"] for policy in rules["policies"]} == {15}


def test_a_schedule_moves_the_lower_bound_of_either_scaler(scaler):
    """It is 2026-01-02 03:04:05 UTC."""
    now = {"start": "0 3 * * *", "end": "0 4 * * *", "minReplicas": 3}
    assert scaler({"schedule": [now]}, keda=False)["minReplicas"] == 3
    assert scaler({"schedule": [now]}, scaler_address=SCALER)["minReplicaCount"] == 3
    later = {**now, "start": "30 3 * * *"}
    assert scaler({"schedule": [later]}, scaler_address=SCALER)["minReplicaCount"] == 1
