"""The PodDisruptionBudget: node drains take one replica at a time, and broken ones at once.

`AlwaysAllow` matters for services of one replica that never became ready: without it they would block a drain for ever.
"""

from __future__ import annotations

from pagoda_operator.api.names import Object
from pagoda_operator.builders.metadata import metadata, selector
from pagoda_operator.builders.workload import Workload


def pod_disruption_budget(workload: Workload) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(workload, "engine"),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(workload.name)},
        },
    }
