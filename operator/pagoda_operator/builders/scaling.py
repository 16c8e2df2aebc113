"""What scaling goes by, whoever does it: the target, the pace, and two signals of which the larger wins.

Waiting requests say that replicas are missing. Running requests keep busy replicas whose queue is empty: by waiting
alone they would be removed under their streams, and come back as soon as the queue fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pagoda_engine.contract import Metric
from pagoda_operator.api import quantity
from pagoda_operator.api.autoscaling import ScalingPolicy, ScalingRules
from pagoda_operator.api.names import API_VERSION, KIND, Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.planner.placement import Placement

BUSY: Final = 0.8
"""Share of what a replica can run at once that counts as full."""

SYNC_SECONDS: Final = 15
"""How often the HPA controller decides, by default, and the shortest period of its own default policies."""
LONGEST_PERIOD: Final = 1800
"""Seconds; autoscaling/v2 allows no longer period of a policy."""


class Source(StrEnum):
    """Who scales, and by whose numbers."""

    PROMETHEUS = "Prometheus"
    """KEDA, by queries to Prometheus."""
    EXTERNAL_PUSH = "ExternalPush"
    """KEDA, by the operator's own scaler."""
    EXTERNAL_METRICS = "ExternalMetrics"
    """A HorizontalPodAutoscaler, by the operator's external.metrics.k8s.io."""
    POD_METRICS = "PodMetrics"
    """A HorizontalPodAutoscaler, by an adapter's custom.metrics.k8s.io."""

    @property
    def kind(self) -> str:
        """The kind of the object that asks for it."""
        return "ScaledObject" if self in (Source.PROMETHEUS, Source.EXTERNAL_PUSH) else "HorizontalPodAutoscaler"


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one service scales, decided.

    prometheus_address  where KEDA asks Prometheus
    push_address        host:port where KEDA asks the operator's scaler; empty where there is none
    authentication      the `authenticationRef` of queries to Prometheus, or None
    auth_modes          what KEDA takes from it
    min_replicas        fewest replicas now, the schedule counted in
    cold_start_seconds  how long a replica takes from its creation to ready, as learned; None before the first
    """

    source: Source
    prometheus_address: str = ""
    push_address: str = ""
    authentication: Object | None = None
    auth_modes: tuple[str, ...] = ()
    min_replicas: int = 1
    cold_start_seconds: int | None = None


def scale_target(service: str) -> Object:
    """The service itself: its scale subresource keeps the operator the one writer of the Deployment's replicas."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": service}


def signals(spec: Spec, placement: Placement) -> tuple[tuple[Metric, int], ...]:
    """Metric and the value per replica above which replicas are added; none without `spec.autoscaling`."""
    if spec.autoscaling is None:
        return ()
    running = spec.autoscaling.running_requests or max(1, int(placement.demand.max_num_seqs * BUSY))
    return ((Metric.WAITING, spec.autoscaling.waiting_requests), (Metric.RUNNING, running))


def behaviour(up: ScalingRules, down: ScalingRules, scaling: Scaling) -> Object:
    """HorizontalPodAutoscalerBehavior with every default written out.

    The API server would fill in the rest of a partial one, and KEDA, which compares with what it once asked for, would
    write its HPA again and again.
    """
    start = _start_period(scaling)
    adding = (
        ScalingPolicy(type="Pods", value=4, period_seconds=start),
        ScalingPolicy(type="Percent", value=100, period_seconds=start),
    )
    removing = (ScalingPolicy(type="Percent", value=100, period_seconds=SYNC_SECONDS),)
    return {"scaleUp": _rules(up, 0, adding), "scaleDown": _rules(down, 300, removing)}


def _rules(asked: ScalingRules, window: int, policies: tuple[ScalingPolicy, ...]) -> Object:
    asked_window = asked.stabilization_window_seconds
    rules: Object = {
        "stabilizationWindowSeconds": window if asked_window is None else asked_window,
        "selectPolicy": asked.select_policy or "Max",
        "policies": [policy.model_dump(by_alias=True) for policy in asked.policies or policies],
    }
    if asked.tolerance is not None:
        rules["tolerance"] = quantity.canonical(asked.tolerance)
    return rules


def _start_period(scaling: Scaling) -> int:
    """Seconds in which replicas may be added once.

    What Prometheus tells of a queue does not shrink while a new replica loads, and no number tells the HPA controller
    that help is on its way: so it asks again only when that is there. Rounded up to a doubling of `SYNC_SECONDS`, so
    that a scaler is not written anew after every start.
    """
    period = SYNC_SECONDS
    if scaling.source is Source.PROMETHEUS:
        while period < (scaling.cold_start_seconds or 0):
            period *= 2
    return min(period, LONGEST_PERIOD)
