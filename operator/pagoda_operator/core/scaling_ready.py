"""The condition ScalingReady: whether somebody sets replicas by the load, and if not, who fails at what.

Scalers tell it in conditions of their own, KEDA on its ScaledObject (pkg/scaling/executor/scale_scaledobjects.go), the
HPA controller on the HorizontalPodAutoscaler (pkg/controller/podautoscaler/horizontal.go).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pagoda_operator.api.autoscaling import Autoscaling
from pagoda_operator.api.names import Object
from pagoda_operator.builders.scaling import Source
from pagoda_operator.core.conditions import Finding, no, unknown, yes
from pagoda_operator.core.scaler import KEDA, choose
from pagoda_operator.core.schedule import floor
from pagoda_operator.core.situation import Situation

States = Mapping[str, Object]
"""A scaler's conditions by type."""

READ_FROM: Final = {
    Source.PROMETHEUS: "Prometheus",
    Source.EXTERNAL_PUSH: "the operator's own scaler",
    Source.EXTERNAL_METRICS: "the operator's external.metrics.k8s.io",
    Source.POD_METRICS: "custom.metrics.k8s.io",
}
MISSING_FIX: Final = {
    Source.PROMETHEUS: "see that KEDA reaches the chart's prometheusAddress, and that this Prometheus scrapes the "
    "engines (metrics.podMonitor) and the operator (metrics.serviceMonitor)",
    Source.EXTERNAL_PUSH: "see that KEDA reaches the operator's scaler, and that the replicas answer the operator",
    Source.EXTERNAL_METRICS: "see that the operator runs, by kubectl get apiservice v1beta1.external.metrics.k8s.io, "
    "and that the replicas answer it",
    Source.POD_METRICS: "see that its adapter has the rule that the chart ships, and that its Prometheus scrapes the "
    "engines (metrics.podMonitor)",
}
ABSENT: Final = ("no custom metrics API", "could not find the requested resource")
"""How the HPA controller says that nobody serves an API group of metrics."""
ABSENT_FIX: Final = (
    "install prometheus-adapter with the rule that the chart ships, or KEDA, or let the operator serve "
    "external.metrics.k8s.io by the chart's externalMetrics.enabled"
)


def scaling_ready(situation: Situation) -> Finding:
    autoscaling = situation.spec.autoscaling
    if autoscaling is None:
        return yes("Manual", "replicas change by hand: kubectl scale, or spec.replicas")
    source = choose(autoscaling, situation.facts, situation.settings)
    if isinstance(source, Finding):
        return source
    finding = _blocked(situation, source.kind) or _told(situation, autoscaling, source)
    problems = floor(autoscaling, situation.facts.now).problems
    if finding.holds and problems:
        return no("ScheduleInvalid", f"{'; '.join(problems)}. Other than that, {finding.message}")
    return finding


def _blocked(situation: Situation, kind: str) -> Finding | None:
    """A scaler that could not be written."""
    key = (kind, situation.name)
    if key in situation.facts.conflicts:
        return no("NameConflict", f"{kind} {situation.name} exists and is not this service's; see Ready")
    if key in situation.facts.refused:
        return no("Refused", f"the API server refused {kind} {situation.name}: {situation.facts.refused[key]}")
    return None


def _told(situation: Situation, autoscaling: Autoscaling, source: Source) -> Finding:
    """What the scaler says of itself."""
    scaler = situation.facts.children.get((source.kind, situation.name)) or {}
    states = {state["type"]: state for state in scaler.get("status", {}).get("conditions") or []}
    finding = (_keda if source.kind == KEDA else _hpa)(situation, source, states)
    message = finding.message
    if finding.holds:
        least = floor(autoscaling, situation.facts.now).min_replicas
        message = f"{message} sets {least} to {autoscaling.max_replicas} replicas by {READ_FROM[source]}"
    notes = _notes(situation, autoscaling, source)
    return Finding(finding.status, finding.reason, "; ".join([message, *notes]))


def _keda(situation: Situation, source: Source, states: States) -> Finding:
    name = f"ScaledObject {situation.name}"
    if _is(states, "Paused", "True"):
        why = "KEDA leaves the replicas alone"
        return no("Paused", f"{why}: remove the annotation autoscaling.keda.sh/paused… of {name}")
    if _is(states, "Fallback", "True"):
        held = "it removes no replica, and sees to spec.autoscaling.fallbackReplicas"
        return _unread(situation, source, "FallingBack", f"KEDA can't read the load: {held}")
    if _is(states, "Ready", "False"):
        state = states["Ready"]
        if state.get("reason") == "TriggerError":
            return _unread(situation, source, "MetricsMissing", f"KEDA can't read the load from {READ_FROM[source]}")
        return no("ScalerNotReady", "; ".join([f"{name}: {_words(state)}", *_credentials(situation)]))
    if _is(states, "HPAActive", "False"):
        message = f"KEDA's HorizontalPodAutoscaler: {_words(states['HPAActive'])}"
        return _unread(situation, source, "MetricsMissing", message)
    if _is(states, "Ready", "True"):
        return yes("Automatic", "KEDA")
    if "Ready" in states and states["Ready"].get("reason"):
        return _unread(situation, source, "MetricsMissing", f"{name}: {_words(states['Ready'])}", unknown)
    check = "if it stays so, see that KEDA runs, by kubectl get pods -A -l app=keda-operator"
    return unknown("ScalerStarting", f"KEDA has not reported on {name} yet; {check}")


def _hpa(situation: Situation, source: Source, states: States) -> Finding:
    name = f"HorizontalPodAutoscaler {situation.name}"
    if _is(states, "AbleToScale", "False"):
        return no("ScalerNotReady", f"{name}: {_words(states['AbleToScale'])}")
    if _is(states, "ScalingActive", "True"):
        return yes("Automatic", "a HorizontalPodAutoscaler")
    if source is Source.EXTERNAL_METRICS and (problem := situation.facts.external_metrics_problem):
        ours = "external.metrics.k8s.io is the operator's, and the API server does not get there"
        check = "kubectl get apiservice v1beta1.external.metrics.k8s.io shows when it does"
        return no("ExternalMetricsUnavailable", f"{ours}: {problem}; {check}")
    if "ScalingActive" not in states:
        return unknown("ScalerStarting", f"the HPA controller has not reported on {name} yet")
    state = states["ScalingActive"]
    if state.get("reason") == "ScalingDisabled":
        fix = f"kubectl scale infsvc {situation.name} --replicas=1 gives it back"
        return no("ScaledToZero", f"a HorizontalPodAutoscaler leaves a service without replicas alone; {fix}")
    if any(words in state.get("message", "") for words in ABSENT):
        return _absent(situation, source, state)
    return no("MetricsMissing", f"{name}: {_words(state)}; {MISSING_FIX[source]}")


def _absent(situation: Situation, source: Source, state: Object) -> Finding:
    """Nobody serves the API group that the HPA controller asks."""
    if source is Source.EXTERNAL_METRICS:
        return no("ExternalMetricsAbsent", f"{_words(state)}; {MISSING_FIX[source]}")
    reason = "ExternalMetricsTaken" if situation.facts.external_metrics_holder else "AdapterAbsent"
    return no(reason, f"nobody serves custom.metrics.k8s.io ({_words(state)}): {ABSENT_FIX}")


def _unread(
    situation: Situation, source: Source, reason: str, message: str, truth: Callable[[str, str], Finding] = no
) -> Finding:
    """KEDA does not get the load. Its conditions don't say why; its Events on the ScaledObject do."""
    answer = f"kubectl describe scaledobject {situation.name} has the answer that KEDA got"
    return truth(reason, "; ".join([message, MISSING_FIX[source], *_credentials(situation), answer]))


def _credentials(situation: Situation) -> list[str]:
    """What else to look at where KEDA authenticates to Prometheus: a wrong secret looks like silence."""
    workload = situation.decision.workload
    if workload is None or workload.scaling is None or (reference := workload.scaling.authentication) is None:
        return []
    modes = ", ".join(workload.scaling.auth_modes) or "no authModes"
    return [f"see that {reference['kind']} {reference['name']} exists, and holds what this Prometheus takes ({modes})"]


def _notes(situation: Situation, autoscaling: Autoscaling, source: Source) -> list[str]:
    """What the user may not expect: a better way that can't be taken, a number that has no effect."""
    notes, facts, workload = [], situation.facts, situation.decision.workload
    if KEDA in facts.served and source.kind != KEDA and autoscaling.provider == "auto":
        notes.append("KEDA is installed, and would be used if the chart's prometheusAddress or scaler.enabled were set")
    if source is Source.POD_METRICS and facts.external_metrics_holder:
        notes.append(f"external.metrics.k8s.io belongs to {facts.external_metrics_holder}, and is left to it")
    asked = autoscaling.running_requests
    if workload is not None and asked is not None and asked > (most := workload.placement.demand.max_num_seqs):
        never = f"runningRequests is {asked}, and a replica runs at most {most}"
        notes.append(f"{never}: only waiting requests add replicas")
    return notes


def _is(states: States, type_: str, status: str) -> bool:
    return type_ in states and states[type_].get("status") == status


def _words(state: Object) -> str:
    return f"{state.get('reason') or 'no reason'}: {state.get('message') or 'no message'}"
