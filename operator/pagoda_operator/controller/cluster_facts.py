"""What holds for every service of the cluster alike, and is found out beside the reconciles."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ClusterFacts:
    """Written by whoever finds out, and read by each reconcile; the fields are those of `core.facts.Facts`.

    served, unreadable    the view's: optional kinds that the cluster has; what the operator may not see -> why
    external_metrics_*    whoever asks for that API group's: who else serves it, or why nobody reaches ours
    """

    served: frozenset[str] = frozenset()
    unreadable: dict[str, str] = field(default_factory=dict)
    external_metrics_holder: str = ""
    external_metrics_problem: str = ""
