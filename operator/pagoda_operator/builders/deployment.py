"""The Deployment of a service's replicas."""

from __future__ import annotations

from pagoda_operator.api.names import Object
from pagoda_operator.builders.metadata import metadata, selector
from pagoda_operator.builders.pod import pod_template
from pagoda_operator.builders.probes import LOAD_SECONDS
from pagoda_operator.builders.workload import Workload


def deployment(workload: Workload) -> Object:
    """Scalers and users write the service's own replicas, and nobody else writes here."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(workload, "engine"),
        "spec": {
            "replicas": workload.replicas,
            "revisionHistoryLimit": 3,
            # Loading is progress that a Deployment can't see.
            "progressDeadlineSeconds": LOAD_SECONDS,
            "selector": {"matchLabels": selector(workload.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod_template(workload),
        },
    }
