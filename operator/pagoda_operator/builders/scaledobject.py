"""KEDA's ScaledObject, by Prometheus or by the operator's own scaler."""

from __future__ import annotations

from typing import Final

from pagoda_engine.contract import Metric
from pagoda_operator.api.names import RUNNING_METRIC, SERVICE_METRIC_LABEL, WAITING_METRIC, Object
from pagoda_operator.builders.metadata import metadata
from pagoda_operator.builders.scaling import Scaling, Source, behaviour, scale_target, signals
from pagoda_operator.builders.workload import Workload

POLL_SECONDS: Final = 5
"""How often KEDA itself looks, for the way from and to zero; in between the HPA controller does, every 15 s."""
PATIENCE: Final = 3
"""Readings in a row that must fail before `fallbackReplicas` counts."""

OPERATOR_METRICS: Final = {Metric.WAITING: WAITING_METRIC, Metric.RUNNING: RUNNING_METRIC}
_NAMES: Final = {Metric.WAITING: "waiting", Metric.RUNNING: "running"}


def scaled_object(workload: Workload) -> Object | None:
    """None where the service does not scale, or not by KEDA."""
    autoscaling, scaling = workload.spec.autoscaling, workload.scaling
    if autoscaling is None or scaling is None or scaling.source.kind != "ScaledObject":
        return None
    spec: Object = {
        "scaleTargetRef": scale_target(workload.name),
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": autoscaling.max_replicas,
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": behaviour(autoscaling.scale_up, autoscaling.scale_down, scaling)
            }
        },
        "triggers": _triggers(workload, scaling),
    }
    if scaling.min_replicas == 0:
        spec |= {
            "pollingInterval": POLL_SECONDS,
            "cooldownPeriod": autoscaling.idle_seconds,
            # A new service that nobody has asked yet is not taken away while its first replica starts.
            "initialCooldownPeriod": autoscaling.idle_seconds,
        }
    if autoscaling.fallback_replicas is not None:
        # Never fewer than there are: who can't see the load must not remove replicas.
        spec["fallback"] = {
            "failureThreshold": PATIENCE,
            "replicas": autoscaling.fallback_replicas,
            "behavior": "currentReplicasIfHigher",
        }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(workload, "scaler"),
        "spec": spec,
    }


def _triggers(workload: Workload, scaling: Scaling) -> list[Object]:
    asked = signals(workload.spec, workload.placement)
    if scaling.source is Source.EXTERNAL_PUSH:
        return [_pushed(_NAMES[metric], workload, scaling, metric, target) for metric, target in asked]
    triggers = [_queried(workload, scaling, metric, target) for metric, target in asked]
    if scaling.push_address and scaling.min_replicas == 0:
        # From zero: a request that a gateway holds is told at once, not after a scrape and a poll.
        triggers += [_pushed("activation", workload, scaling, *asked[0])]
    return triggers


def _pushed(name: str, workload: Workload, scaling: Scaling, metric: Metric, target: int) -> Object:
    return {
        "type": "external-push",
        "name": name,
        "metricType": "AverageValue",
        "metadata": {
            "scalerAddress": scaling.push_address,
            "service": workload.name,
            "metric": str(metric),
            "target": str(target),
        },
    }


def _queried(workload: Workload, scaling: Scaling, metric: Metric, target: int) -> Object:
    trigger: Object = {
        "type": "prometheus",
        "name": _NAMES[metric],
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": scaling.prometheus_address,
            "query": load_query(workload.namespace, workload.name, metric),
            "threshold": str(target),
            # No series means that nobody knows, not that nobody waits.
            "ignoreNullValues": "false",
        },
    }
    if scaling.authentication is not None:
        trigger["authenticationRef"] = scaling.authentication
        if scaling.auth_modes:
            trigger["metadata"]["authModes"] = ",".join(scaling.auth_modes)
    return trigger


def load_query(namespace: str, service: str, metric: Metric) -> str:
    """PromQL for one signal: what the replicas say or what the operator says, whichever is more; nothing where neither
    is heard.

    Without replicas there are no series of theirs, and it is the operator that says 0, or how many requests a gateway
    holds. A constant in its place (`or vector(0)`) would read 0 as well where the scrapes of busy replicas fail, and
    they would be removed.
    """
    replicas = f"sum({metric}{{{_pods(namespace, service)}}})"
    operator = f'max({OPERATOR_METRICS[metric]}{{{SERVICE_METRIC_LABEL}="{namespace}/{service}"}})'
    # A label of its own keeps the second one beside the first instead of only in its absence.
    return f'max({replicas} or label_replace({operator}, "by", "operator", "", ""))'


def _pods(namespace: str, service: str) -> str:
    """Label matchers of the service's pods, by the two labels that every common scrape configuration sets.

    A pod's name is the service's, the ReplicaSet's hash and five characters; long names lose the second dash
    (k8s.io/apiserver/pkg/storage/names cuts the part before the five characters at 58).
    """
    return f'namespace="{namespace}",pod=~"{service}(-[^-]+){{1,2}}"'
