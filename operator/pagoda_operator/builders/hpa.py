"""The HorizontalPodAutoscaler (autoscaling/v2), for clusters without KEDA."""

from __future__ import annotations

from pagoda_engine.contract import Metric
from pagoda_operator.api.names import Object
from pagoda_operator.api.quantity import canonical
from pagoda_operator.builders.metadata import metadata, selector
from pagoda_operator.builders.scaling import Source, behaviour, scale_target, signals
from pagoda_operator.builders.workload import Workload


def horizontal_pod_autoscaler(workload: Workload) -> Object | None:
    """None where the service does not scale, or not by an HPA."""
    autoscaling, scaling = workload.spec.autoscaling, workload.scaling
    if autoscaling is None or scaling is None or scaling.source.kind != "HorizontalPodAutoscaler":
        return None
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(workload, "scaler"),
        "spec": {
            "scaleTargetRef": scale_target(workload.name),
            "minReplicas": scaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [
                _metric(workload, scaling.source, metric, target)
                for metric, target in signals(workload.spec, workload.placement)
            ],
            "behavior": behaviour(autoscaling.scale_up, autoscaling.scale_down, scaling),
        },
    }


def _metric(workload: Workload, source: Source, metric: Metric, target: int) -> Object:
    identifier: Object = {"name": str(metric)}
    per_replica = {"type": "AverageValue", "averageValue": canonical(target)}
    if source is Source.POD_METRICS:
        return {"type": "Pods", "pods": {"metric": identifier, "target": per_replica}}
    identifier["selector"] = {"matchLabels": selector(workload.name)}
    return {"type": "External", "external": {"metric": identifier, "target": per_replica}}
