"""KEDA's ScaledObject, for clusters that have KEDA and a Prometheus that scrapes the engines."""

from __future__ import annotations

from pagoda_engine.contract import Metric
from pagoda_operator.api.names import Object
from pagoda_operator.builders.metadata import metadata
from pagoda_operator.builders.scaling import scale_target, signals
from pagoda_operator.builders.workload import Workload


def scaled_object(workload: Workload) -> Object | None:
    """None where the service does not scale by itself."""
    autoscaling = workload.spec.autoscaling
    if autoscaling is None:
        return None
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(workload, "scaler"),
        "spec": {
            "scaleTargetRef": scale_target(workload),
            "minReplicaCount": autoscaling.min_replicas,
            "maxReplicaCount": autoscaling.max_replicas,
            "pollingInterval": 15,
            "triggers": [_trigger(workload, metric, value) for metric, value in signals(workload, autoscaling)],
        },
    }


def _trigger(workload: Workload, metric: Metric, value: int) -> Object:
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": workload.prometheus_address,
            "query": f"sum({metric}{{{_pods(workload)}}})",
            "threshold": str(value),
            # No series means that nobody knows, not that nobody waits: leave the replicas as they are.
            "ignoreNullValues": "false",
        },
    }


def _pods(workload: Workload) -> str:
    """Label matchers of the service's pods, by the two labels that every common scrape configuration sets.

    A pod's name is the service's, the ReplicaSet's hash and five characters; long names lose the second dash
    (k8s.io/apiserver/pkg/storage/names cuts the part before the five characters at 58).
    """
    return f'namespace="{workload.namespace}",pod=~"{workload.name}(-[^-]+){{1,2}}"'
