"""The Deployment of a service as it is to be: what the builder makes, with the template that is kept and the bounds of
its roll-out."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda_operator.api.names import Object
from pagoda_operator.builders.deployment import deployment
from pagoda_operator.builders.workload import Workload
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.rollout import Rollout, roll_out
from pagoda_operator.core.template import asked_for, keep_template


@dataclass(frozen=True, slots=True)
class PlannedDeployment:
    """`newest` is the template that would be made today, where it is not the one that the pods keep."""

    object: Object
    rollout: Rollout
    newest: Object | None


def plan_deployment(service: Object, workload: Workload, facts: Facts) -> PlannedDeployment:
    """The Deployment, and what there is to tell about it."""
    live = facts.children.get(("Deployment", workload.name))
    kept = keep_template(deployment(workload), asked_for(service, workload.spec, workload.placement), live)
    rollout = roll_out(kept.deployment, live, workload.spec, facts)
    return PlannedDeployment(rollout.on(kept.deployment), rollout, kept.newest)
