"""`spec.autoscaling`: between which bounds replicas follow the load, and how fast.

`scaleUp` and `scaleDown` are HPAScalingRules of autoscaling/v2 word for word, bounds included
(k8s.io/kubernetes/pkg/apis/autoscaling/validation), since an HPA is what carries them out, KEDA's too.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from pagoda_operator.api.document import Document
from pagoda_operator.api.quantity import Quantity

_FIELD: Final = r"[0-9A-Za-z*#,/-]+"
CRON: Final = rf"^{_FIELD}( {_FIELD}){{4}}$"
"""Five fields: minute, hour, day of month, month, day of week. Their meaning is judged when the service is planned."""
TIME_ZONE: Final = r"^[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*$"
OBJECT_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""DNS-1123 subdomain."""

Cron = Annotated[str, Field(pattern=CRON, max_length=100)]


class ScalingPolicy(Document):
    type: Literal["Pods", "Percent"] = Field(description="Whether `value` counts replicas or percent of them.")
    value: int = Field(ge=1, le=100000, description="Most replicas, or percent of them, within the period.")
    period_seconds: int = Field(ge=1, le=1800, description="Length of the period.")


class ScalingRules(Document):
    stabilization_window_seconds: int | None = Field(
        default=None,
        ge=0,
        le=3600,
        description="How far back recommendations are looked at; the least drastic one holds. "
        "Default: 0 to add, 300 to remove.",
    )
    select_policy: Literal["Max", "Min", "Disabled"] | None = Field(
        default=None, description="Which policy counts; Disabled forbids this direction. Default: Max."
    )
    policies: tuple[ScalingPolicy, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="How fast replicas may change. Default: 4 replicas or 100 % in 15 s to add (by Prometheus: in the "
        "time that a replica takes to start), 100 % in 15 s to remove.",
    )
    tolerance: Quantity | None = Field(
        default=None, description="Deviation from the target that is let pass, 0.1 is 10 %; Kubernetes 1.35 or newer."
    )


class ScheduleEntry(Document):
    start: Cron = Field(description="When it begins, as five cron fields, `0 8 * * MON-FRI`.")
    end: Cron = Field(description="When it ends, as five cron fields.")
    timezone: str = Field(
        default="UTC", pattern=TIME_ZONE, max_length=100, description="IANA name of the time zone, `Europe/Berlin`."
    )
    min_replicas: int = Field(ge=1, le=1000, description="Fewest replicas from start to end.")


class PrometheusAuthentication(Document):
    name: str = Field(
        pattern=OBJECT_NAME, max_length=253, description="Name of the TriggerAuthentication, in the same namespace."
    )
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] = Field(
        default="TriggerAuthentication", description="Its kind."
    )
    modes: tuple[Literal["bearer", "basic", "oauth", "tls", "custom"], ...] = Field(
        default=("bearer",),
        max_length=3,
        description="What KEDA takes from it (its `authModes`); none for a pod's own identity in a cloud.",
    )


class Autoscaling(Document):
    min_replicas: int = Field(default=1, ge=0, le=1000, description="Fewest replicas; 0 takes `provider: keda`.")
    max_replicas: int = Field(ge=1, le=1000, description="Most replicas.")
    waiting_requests: int = Field(
        default=5, ge=1, le=100000, description="Waiting requests per replica above which replicas are added."
    )
    running_requests: int | None = Field(
        default=None,
        ge=1,
        le=100000,
        description="Running requests per replica above which replicas are added. "
        "Default: 80 % of what a replica runs at once.",
    )
    provider: Literal["auto", "keda", "hpa"] = Field(
        default="auto", description="Who scales. auto: KEDA where the cluster has it, else a HorizontalPodAutoscaler."
    )
    idle_seconds: int = Field(
        default=300, ge=0, le=86400, description="Time without a request before the last replica goes, by KEDA."
    )
    scale_up: ScalingRules = Field(default_factory=ScalingRules, description="How replicas are added.")
    scale_down: ScalingRules = Field(default_factory=ScalingRules, description="How replicas are removed.")
    schedule: tuple[ScheduleEntry, ...] = Field(
        default=(), max_length=20, description="Times with more replicas at least; the largest minReplicas wins."
    )
    fallback_replicas: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Fewest replicas while KEDA can't read the load. Default: replicas stay as they are.",
    )
    prometheus_authentication: PrometheusAuthentication | None = Field(
        default=None, description="How KEDA authenticates to Prometheus. Default: the operator's settings."
    )
