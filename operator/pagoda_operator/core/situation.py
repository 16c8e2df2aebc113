"""A service seen whole: what it wants, what was decided, and what is live. Status and conditions are read off it."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda_engine.contract import Progress
from pagoda_operator.api.names import Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.api.status import Failure
from pagoda_operator.builders.workload import claim_name
from pagoda_operator.core.decision import Decision
from pagoda_operator.core.deployment import PlannedDeployment
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.pods import deadline, is_leaving, maker, present_problem, runs_model, slowest_progress
from pagoda_operator.core.replicas import Replicas
from pagoda_operator.core.rollout import USUAL, Rollout
from pagoda_operator.core.settings import Settings
from pagoda_operator.core.template import is_unseen


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a status is made from. `wanted` are the Deployment's replicas as decided; `planned_deployment` is
    None where nothing can be planned; `outdated` means that the pods' template is about to change."""

    service: Object
    spec: Spec
    facts: Facts
    settings: Settings
    decision: Decision
    wanted: Replicas
    planned_deployment: PlannedDeployment | None
    outdated: bool

    @property
    def name(self) -> str:
        return str(self.service["metadata"]["name"])

    @property
    def before(self) -> Object:
        """The status so far."""
        return self.service.get("status", {}) or {}

    @property
    def deployment(self) -> Object | None:
        return self.facts.children.get(("Deployment", self.name))

    @property
    def claim(self) -> Object | None:
        return self.facts.children.get(("PersistentVolumeClaim", claim_name(self.name)))

    @property
    def replicas(self) -> int:
        return self._count("replicas")

    @property
    def ready_replicas(self) -> int:
        return self._count("readyReplicas")

    @property
    def pods_refused(self) -> str:
        """Why pods can't be made, in the API server's words; empty where they can."""
        conditions = (self.deployment or {}).get("status", {}).get("conditions", [])
        failing = (c for c in conditions if (c["type"], c["status"]) == ("ReplicaFailure", "True"))
        return next((c.get("message") or "" for c in failing), "")

    @property
    def rolling(self) -> bool:
        """Whether replicas of a former spec are left, or may be."""
        if self.deployment is None or self.replicas == 0:
            return False
        return self.outdated or self._unseen or self._count("updatedReplicas") < self.replicas

    @property
    def rollout(self) -> Rollout:
        return USUAL if self.planned_deployment is None else self.planned_deployment.rollout

    @property
    def newest_template(self) -> Object | None:
        """The template that a roll-out would bring which nobody has asked for yet."""
        return None if self.planned_deployment is None else self.planned_deployment.newest

    def told(self, condition: str) -> Object:
        """A condition as the status so far has it, or an empty one."""
        return next((dict(c) for c in self.before.get("conditions", []) if c["type"] == condition), {})

    def was(self, condition: str) -> bool:
        """Whether a condition held in the status so far."""
        return self.told(condition).get("status") == "True"

    @property
    def progress(self) -> Progress | None:
        return slowest_progress(self.pods_of_spec, self.facts.reports)

    @property
    def problem(self) -> Failure | None:
        """What keeps a pod from being ready now."""
        return present_problem(self.pods_of_spec, self.failure_before)

    @property
    def failure_before(self) -> Failure | None:
        """The last failure that was told of."""
        return Failure.remembered(self.before.get("lastFailure"))

    @property
    def pods_of_model(self) -> tuple[Object, ...]:
        return tuple(pod for pod in self.facts.pods if runs_model(pod, self.spec.model.uri))

    @property
    def pods_of_spec(self) -> tuple[Object, ...]:
        """Those of the newest template: while others are replaced, what those suffer from is what the edit may mend."""
        pods = self.pods_of_model
        if not self.rolling:
            return pods
        if self.outdated or self._unseen or not self._count("updatedReplicas"):
            return ()
        newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)
        return tuple(pod for pod in pods if newest is not None and maker(pod) == maker(newest))

    @property
    def leaving(self) -> tuple[Object, ...]:
        """Pods on their way out, which hold their places until then, the one first that must be gone first."""
        return tuple(sorted(filter(is_leaving, self.facts.pods), key=deadline))

    @property
    def _unseen(self) -> bool:
        return self.deployment is not None and is_unseen(self.deployment)

    def _count(self, field: str) -> int:
        return int((self.deployment or {}).get("status", {}).get(field, 0))
