"""The HorizontalPodAutoscaler (autoscaling/v2), for clusters without KEDA; it needs an adapter for custom metrics."""

from __future__ import annotations

from pagoda_operator.api.names import Object
from pagoda_operator.api.quantity import canonical
from pagoda_operator.builders.metadata import metadata
from pagoda_operator.builders.scaling import scale_target, signals
from pagoda_operator.builders.workload import Workload


def horizontal_pod_autoscaler(workload: Workload) -> Object | None:
    """None where the service does not scale by itself."""
    autoscaling = workload.spec.autoscaling
    if autoscaling is None:
        return None
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(workload, "scaler"),
        "spec": {
            "scaleTargetRef": scale_target(workload),
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": str(metric)},
                        "target": {"type": "AverageValue", "averageValue": canonical(value)},
                    },
                }
                for metric, value in signals(workload, autoscaling)
            ],
        },
    }
