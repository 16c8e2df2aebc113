"""What scaling goes by, whoever does it: the target, and two signals of which the larger wins.

Waiting requests say that replicas are missing. Running requests keep busy replicas whose queue is empty: by waiting
alone they would be removed under their streams, and come back as soon as the queue fills.
"""

from __future__ import annotations

from typing import Final

from pagoda_engine.contract import Metric
from pagoda_operator.api.names import API_VERSION, KIND, Object
from pagoda_operator.api.spec import Autoscaling
from pagoda_operator.builders.workload import Workload

BUSY: Final = 0.8
"""Share of what a replica can run at once that counts as full."""


def scale_target(workload: Workload) -> Object:
    """The service itself: its scale subresource keeps the operator the one writer of the Deployment's replicas."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": workload.name}


def signals(workload: Workload, autoscaling: Autoscaling) -> tuple[tuple[Metric, int], ...]:
    """Metric and the value per replica above which replicas are added."""
    running = max(1, int(workload.placement.demand.max_num_seqs * BUSY))
    return ((Metric.WAITING, autoscaling.waiting_requests), (Metric.RUNNING, running))
