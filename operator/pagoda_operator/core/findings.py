"""The conditions of a service, without their times: `findings` is the table, each entry a function of the situation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pagoda_engine.contract import Stage
from pagoda_operator.api.names import UPGRADE_ANNOTATION
from pagoda_operator.api.status import Failure
from pagoda_operator.builders.pvc import unheeded
from pagoda_operator.core.conditions import Finding, no, unknown, yes
from pagoda_operator.core.pods import FIXES, UNSCHEDULABLE, deadline, model_complete, overdue
from pagoda_operator.core.scaling_ready import scaling_ready
from pagoda_operator.core.situation import Situation
from pagoda_operator.core.template import differences, digest

SHOWN: Final = 5
"""Differences, and pods on their way out, that are told one by one."""


def findings(situation: Situation) -> Mapping[str, Finding]:
    """The conditions by type, in the order in which kubectl describes them."""
    workload = _workload_ready(situation)
    return {
        "Ready": _ready(situation, workload),
        "Planned": situation.decision.planned,
        "ModelCached": model_cached(situation),
        "WorkloadReady": workload,
        "ScalingReady": scaling_ready(situation),
        "UpToDate": _up_to_date(situation),
    }


def _ready(situation: Situation, workload: Finding) -> Finding:
    """Whether requests are answered as the spec says. Adding replicas does not end it; a new spec does, until no
    replica of the former one is left."""
    ready, planned = situation.ready_replicas, situation.decision.planned
    of = " of the former spec" if situation.rolling else ""
    former = f"; {_count(ready)}{of} still answer{'s' if ready == 1 else ''}" if ready else ""
    if not planned.holds:
        return Finding("False", planned.reason, planned.message + former)
    if blocked := _blocked(situation):
        return Finding("False", blocked.reason, blocked.message + former)
    if situation.wanted.count == 0:
        fix = f"kubectl scale infsvc {situation.name} --replicas=1 starts one"
        if situation.spec.autoscaling is not None and situation.spec.autoscaling.min_replicas == 0:
            fix = "the next request that a gateway holds for it starts one"
        return no("ScaledToZero", f"no replica runs; {fix}")
    if ready and not situation.rolling:
        return yes("Serving", f"{_count(ready)} of {situation.wanted.count} answering")
    return Finding("False", workload.reason, workload.message + former)


def _workload_ready(situation: Situation) -> Finding:
    if blocked := _blocked(situation):
        return blocked
    found = _workload(situation)
    return replace(found, message=found.message + _leaving(situation) + _failing(situation))


def _workload(situation: Situation) -> Finding:
    wanted, ready = situation.wanted.count, situation.ready_replicas
    if situation.deployment is None:
        return unknown("NotStarted", "there are no pods yet")
    if situation.planned_deployment is None:
        return unknown("NotPlanned", f"{_count(ready)} ready, as before; nothing is changed until it can be planned")
    settled = not situation.rolling and situation.replicas == wanted
    if settled and ready == wanted:
        if wanted == 0:
            return yes("ScaledToZero", "no replica is wanted, and none runs")
        return yes("AllReplicasReady", f"{_count(ready)} ready")
    if refusal := situation.pods_refused:
        return no("PodsRefused", f"{ready} of {wanted} replicas ready, and no more pods can be made: {refusal}")
    rollout = situation.rollout
    if situation.rolling and rollout.waits:
        return no("RolloutBlocked", f"replicas of the former spec can't be replaced: {rollout.note}")
    note = f"; replaced {rollout.note}" if situation.rolling and rollout.note else ""
    problem = situation.problem
    if problem and not (note and problem.reason == UNSCHEDULABLE and situation.leaving):
        return no(problem.reason, f"pod {problem.pod}: {_with_fix(problem)}")
    if progress := situation.progress:
        return no(_stage_reason(progress.stage), f"{ready} of {wanted} replicas ready; {progress}{note}")
    if situation.rolling:
        return no("RollingOut", f"replicas of the former spec are being replaced{note}")
    if situation.replicas > wanted:
        return no("ScalingIn", f"{_count(situation.replicas - wanted)} to be given up")
    return no("Starting", f"{ready} of {wanted} replicas ready")


def _leaving(situation: Situation) -> str:
    """What pods on their way out still hold their places for, and how long at most."""
    leaving = situation.leaving
    if not leaving:
        return ""
    shown = ", ".join(_to_end(pod["metadata"]["name"], situation) for pod in leaving[:SHOWN])
    others = f" and {len(leaving) - SHOWN} more" if len(leaving) > SHOWN else ""
    latest, last = deadline(leaving[-1])
    if situation.facts.now > overdue(leaving[-1]):
        fix = f"its node does not answer; if it is gone for good: kubectl delete pod {last} --force"
        return f"; {_count(len(leaving))} should have gone by {latest}: {shown}{others}; {fix}"
    return f"; {_count(len(leaving))} more to go when the last stream ends, by {latest} in any case: {shown}{others}"


def _failing(situation: Situation) -> str:
    """What could not be written just now: the API server answers, or there would be no status, but not to this."""
    failing = sorted(situation.facts.failing.items())
    return "".join(f"; {kind} {name} can't be changed now, and is tried again: {why}" for (kind, name), why in failing)


def _to_end(pod: str, situation: Situation) -> str:
    report = situation.facts.reports.get(pod)
    if report is None or report.progress is None or report.progress.stage is not Stage.DRAINING:
        return pod
    return f"{pod} ({report.progress.message})"


def _blocked(situation: Situation) -> Finding | None:
    """Children that could not be written."""
    for (kind, name), message in sorted(situation.facts.conflicts.items()):
        fix = "delete it or give this service another name"
        return no("NameConflict", f"{kind} {name} exists and is not this service's: {message}; {fix}")
    for (kind, name), message in sorted(situation.facts.refused.items()):
        if kind == "PersistentVolumeClaim" and situation.claim is not None:
            continue  # a claim that can't grow still serves; ModelCached tells
        return no("Refused", f"the API server refused {kind} {name}: {message}")
    return None


def model_cached(situation: Situation) -> Finding:
    """Whether the model is where pods read it, or how far it is on its way."""
    claim, pods = situation.claim, situation.pods_of_model
    if any(model_complete(pod) for pod in pods):
        return yes("Cached", _cached_message(situation))
    if (problem := situation.problem) is not None and problem.exit_code is not None:
        return no(problem.reason, _with_fix(problem))
    if (progress := situation.progress) is not None and progress.stage is Stage.PULLING:
        return no("Pulling", str(progress))
    if claim is None:
        return unknown("NotStarted", "the cache's claim does not exist yet")
    if not pods and _was_cached(situation):
        return yes("Cached", _cached_message(situation))
    if claim.get("status", {}).get("phase") == "Pending":
        class_ = claim["spec"].get("storageClassName", "the default class")
        fix = "if it stays so, see `kubectl describe pvc` and check spec.cache.storageClassName"
        return no("VolumePending", f"claim {claim['metadata']['name']} of {class_} is not bound yet; {fix}")
    return unknown("NotStarted", "no pod has begun to fetch the model yet")


def _cached_message(situation: Situation) -> str:
    claim, workload = situation.claim, situation.decision.workload
    note = unheeded(workload, claim) if claim is not None and workload is not None else None
    return f"the model is in the cache; {note}" if note else "the model is in the cache"


def _was_cached(situation: Situation) -> bool:
    """Whether the same model was complete before its last pod went."""
    remembered = situation.before.get("modelFacts", {}).get("uri")
    return situation.was("ModelCached") and remembered == situation.spec.model.uri and not _is_new(situation)


def _is_new(situation: Situation) -> bool:
    """Whether the claim was made, or lost, since the model was told to be in it."""
    claim = situation.claim or {}
    told = situation.told("ModelCached").get("lastTransitionTime", "")
    made = claim.get("metadata", {}).get("creationTimestamp", "")
    return made > told or claim.get("status", {}).get("phase") in ("Pending", "Lost")


def _up_to_date(situation: Situation) -> Finding:
    """Whether pods are made as this operator would make them now. If not, nothing is wrong: it waits to be asked."""
    newest, planned = situation.newest_template, situation.planned_deployment
    if planned is None:
        return unknown("NotPlanned", "nothing can be planned now")
    if newest is None:
        return yes("UpToDate", "the pods' template is what the operator makes of the spec today")
    found = sorted(differences(planned.object["spec"]["template"], newest))
    listed = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    ask = f"kubectl annotate infsvc {situation.name} {UPGRADE_ANNOTATION}={digest(newest)} --overwrite"
    return no(
        "UpgradeAvailable",
        f"the operator or its settings would make pods otherwise today: {listed}; they are replaced when their part of "
        f"the spec changes, or by: {ask}",
    )


def _with_fix(problem: Failure) -> str:
    fix = FIXES.get(problem.reason)
    return f"{problem.message}; {fix}" if fix else problem.message


def _stage_reason(stage: Stage) -> str:
    return "".join(word.capitalize() for word in stage.value.split())


def _count(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"
