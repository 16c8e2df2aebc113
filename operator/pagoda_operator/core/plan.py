"""What to do about one service. Pure: the same service, facts and settings give the same plan.

validate -> replicas -> decide (model, GPUs) -> Deployment and other children as they should be -> what to write
-> status
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydantic_core import from_json, to_json

from pagoda_operator.api.names import Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.api.validation import validate, with_defaults
from pagoda_operator.core.children import ObjectRef, replaces_pods, to_apply, to_delete, wanted
from pagoda_operator.core.decision import RETRY_SECONDS, decide
from pagoda_operator.core.deployment import PlannedDeployment, plan_deployment
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.pods import overdue
from pagoda_operator.core.replicas import Replicas, Standing, replicas
from pagoda_operator.core.schedule import floor
from pagoda_operator.core.settings import Settings
from pagoda_operator.core.situation import Situation
from pagoda_operator.core.status import blind_status, refused_status, status_of

__all__ = ["ObjectRef", "Plan", "is_sound", "plan"]

SPECS: Final = 256
"""Specs that stay read."""
LONGEST_SLEEP: Final = 900.0
"""Seconds after which the clock is looked at again for a schedule: it may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one service, in this order.

    apply          whole desired children, in order, only those that differ from what is live: nothing to do is empty.
                   Each carries apiVersion, kind, metadata.namespace and, unless it is to outlive it, an ownerReference
                   to the service
    delete         children no longer wanted
    status         the service's whole `status` value; write it where it differs from the service's own
    requeue_after  seconds until the service should be planned again without an event, or None
    """

    apply: tuple[Object, ...]
    delete: tuple[ObjectRef, ...]
    status: Object
    requeue_after: float | None


def is_sound(service: Object) -> bool:
    """Whether the spec is one that an API server lets pass. Only such a one names a model that can be asked for, whose
    facts a plan needs."""
    return isinstance(_spec_of(service), Spec)


def plan(service: Object, facts: Facts, settings: Settings) -> Plan:
    """What to do about one service. A service that is being deleted is left alone: its children go with it.

    While nothing can be planned (the model can't be read, no GPU fits, the spec asks the impossible, children can't be
    seen), what runs already goes on running, and the status says why it does not change.
    """
    if "deletionTimestamp" in service["metadata"]:
        return Plan((), (), service.get("status", {}), None)
    spec = _spec_of(service)
    if isinstance(spec, Invalid):
        return Plan((), (), refused_status(service, spec.problems, facts), None)
    if facts.unreadable:
        return Plan((), (), blind_status(service, facts), None)
    wanted_replicas = _replicas(service, spec, facts)
    decision = decide(service, spec, facts, settings, wanted_replicas.count)
    deployment: PlannedDeployment | None = None
    apply: tuple[Object, ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    if decision.workload is not None:
        deployment = plan_deployment(service, decision.workload, facts)
        desired = wanted(decision.workload, deployment.object, facts, settings)
        apply = to_apply(desired, facts.children)
        delete = to_delete(desired, facts.children, decision.workload.uid)
    outdated = replaces_pods(apply, facts.children)
    situation = Situation(service, spec, facts, settings, decision, wanted_replicas, deployment, outdated)
    return Plan(apply=apply, delete=delete, status=status_of(situation), requeue_after=_look_again(situation))


@dataclass(frozen=True, slots=True)
class Invalid:
    """What the API server should have refused."""

    problems: tuple[str, ...]


def _spec_of(service: Object) -> Spec | Invalid:
    """What the user asks, without what was answered: statuses and metadata are long, and defaults are filled into
    copies."""
    asked = {name: service[name] for name in ("apiVersion", "kind", "spec") if name in service}
    return _spec(to_json(asked | {"metadata": {"name": service["metadata"]["name"]}}))


@lru_cache(SPECS)
def _spec(asked: bytes) -> Spec | Invalid:
    """Read once, since a service is planned for many reasons, of which its spec is seldom one."""
    service = from_json(asked)
    problems = validate(service)
    return Invalid(tuple(problems)) if problems else Spec.of(with_defaults(service))


def _look_again(situation: Situation) -> float | None:
    """Seconds until something may have changed that no event tells of."""
    facts, planned = situation.facts, situation.planned_deployment
    delays = (
        RETRY_SECONDS if facts.conflicts or facts.refused else None,
        situation.decision.requeue_after,
        planned.rollout.look_again if planned is not None else None,
        _until_next_turn(situation.spec, facts),
        _until_overdue(situation),
    )
    return min((delay for delay in delays if delay is not None), default=None)


def _until_next_turn(spec: Spec, facts: Facts) -> float | None:
    """Seconds until the schedule says something else."""
    if spec.autoscaling is None or (turn := floor(spec.autoscaling, facts.now).until) is None:
        return None
    return min((turn - facts.now).total_seconds(), LONGEST_SLEEP)


def _until_overdue(situation: Situation) -> float | None:
    """Seconds until the next of the pods on their way out should long have gone."""
    seconds = [(overdue(pod) - situation.facts.now).total_seconds() for pod in situation.leaving]
    return min((left + 1 for left in seconds if left >= 0), default=None)


def _replicas(service: Object, spec: Spec, facts: Facts) -> Replicas:
    deployment = facts.children.get(("Deployment", service["metadata"]["name"]))
    standing = None if deployment is None else Standing.of(deployment, facts.pods)
    return replicas(spec.replicas, spec.autoscaling.max_replicas if spec.autoscaling else None, standing)
