"""What is known about the world when a service is planned. Facts are data: whoever gathers them does all the I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pagoda_engine.contract import ModelFacts, Progress
from pagoda_operator.api.names import Object
from pagoda_operator.api.status import QueueStatus
from pagoda_operator.planner.nodes import Node


@dataclass(frozen=True, slots=True)
class PodReport:
    """What one pod answered when it was last asked; None where it did not answer or does not have the number yet."""

    progress: Progress | None = None
    waiting: int | None = None
    running: int | None = None


@dataclass(frozen=True, slots=True)
class ModelUnreadable:
    """Why the model's facts could not be read. `permanent` means that only an edit of the spec can help."""

    message: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """One consistent view of the store, taken at `now` (timezone-aware).

    children   objects that this service controls, by (kind, name); and a claim that bears its `pagoda.dev/service`
               label and that nobody controls, which is what `spec.cache.retain` leaves
    pods       its pods, any order
    last_leaving   when one of them was last known to be on its way out; None where that is not known
    nodes      every node of the cluster; none in local mode
    model      None while it is being read
    reports    by pod name; a pod that was never asked, or never answered, is absent
    load       all replicas' load at this very moment, where known; for texts that are told once, since it moves all the
               time: `reports` are what may be told, and change slowly
    served     kinds of optional APIs that the cluster has, e.g. `ScaledObject`
    unreadable what the operator may not see -> the API server's words; while there is any, the rest can't be trusted
    external_metrics_holder    who else serves external.metrics.k8s.io where the operator was told to, in words such as
               `Service keda/keda-operator-metrics-apiserver`; empty where the group is free or the operator's own
    external_metrics_problem   why the API server can't pass external.metrics.k8s.io on to the operator, though nobody
               else has it; empty where it can
    conflicts  (kind, name) of a child's place that a foreign object holds -> who holds it, as a sentence. The plan
               goes on asking for such a child; the entry goes away when that succeeds
    refused    (kind, name) of a child that the API server refused (quota, policy, schema) -> its message. An entry goes
               away when an apply of that child succeeds, or with the next generation of the service
    failing    (kind, name) of a child that could not be changed just now (no answer, a race) -> the message. It is
               tried again, and nothing follows from it
    requested  GPUs that running and scheduled pods already asked for, by node name; this service's own pods excluded,
               since a plan must not change because it was carried out
    """

    now: datetime
    model: ModelFacts | ModelUnreadable | None = None
    children: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    last_leaving: datetime | None = None
    nodes: tuple[Node, ...] = ()
    reports: Mapping[str, PodReport] = field(default_factory=dict)
    load: QueueStatus | None = None
    served: frozenset[str] = frozenset()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    external_metrics_holder: str = ""
    external_metrics_problem: str = ""
    conflicts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    failing: Mapping[tuple[str, str], str] = field(default_factory=dict)
    requested: Mapping[str, int] = field(default_factory=dict)
