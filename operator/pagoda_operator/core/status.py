"""What a user is told: the status of a service, read off its situation, each part by a function of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pagoda_engine.contract import ModelFacts, Stage
from pagoda_operator.api.names import SERVICE_LABEL, Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.api.status import CacheStatus, GpuClass, ModelStatus, PlanStatus, QueueStatus, Status
from pagoda_operator.builders.workload import served_name
from pagoda_operator.core.conditions import Finding, conditions, no, unknown
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.findings import findings, model_cached
from pagoda_operator.core.pods import is_leaving, last_failure
from pagoda_operator.core.scaling_status import scaling_status
from pagoda_operator.core.situation import Situation
from pagoda_operator.planner.placement import Placement


def status_of(situation: Situation) -> Object:
    """The whole status, as plain values."""
    service, spec, settings = situation.service, situation.spec, situation.settings
    metadata = service["metadata"]
    return Status(
        observed_generation=metadata.get("generation"),
        conditions=conditions(findings(situation), service, situation.facts.now),
        replicas=situation.replicas,
        ready_replicas=situation.ready_replicas,
        ready=f"{situation.ready_replicas}/{situation.wanted.count}",
        selector=f"{SERVICE_LABEL}={situation.name}",
        url=settings.service_url.format(name=situation.name, namespace=metadata["namespace"]),
        model=served_name(spec),
        model_facts=_model(spec, situation.decision.model),
        plan=_plan(situation),
        rejected=situation.decision.rejected,
        cache=_cache(situation),
        queue=_queue(situation),
        scaling=scaling_status(situation),
        last_failure=last_failure(situation.facts.pods, situation.failure_before),
    ).to_object()


def refused_status(service: Object, problems: Sequence[str], facts: Facts) -> Object:
    """The status of a service that should never have passed validation: what there was, and why it stands still."""
    finding = no("Invalid", "; ".join(problems))
    return _standing_still(service, {"Ready": finding, "Planned": finding}, facts)


def blind_status(service: Object, facts: Facts) -> Object:
    """The status of a service whose children may be as they should, or not: the operator can't see them."""
    unseen = "; ".join(f"{what}: {why}" for what, why in sorted(facts.unreadable.items()))
    message = f"the operator may not see {unseen}; give its role what the chart's role has (rbac.create)"
    return _standing_still(service, {"Ready": unknown("ClusterUnreadable", message)}, facts)


def _standing_still(service: Object, findings: Mapping[str, Finding], facts: Facts) -> Object:
    """What was told before, with these conditions instead of theirs."""
    before, generation = service.get("status", {}), service["metadata"].get("generation")
    others = [c for c in before.get("conditions", []) if c["type"] not in findings]
    own = Status(observed_generation=generation, conditions=conditions(findings, service, facts.now)).to_object()
    told = {"observedGeneration": generation, "conditions": [*own["conditions"], *others]}
    return {**own, **before, **told}  # no replica is counted where none can be seen: those that were told of stay


def _model(spec: Spec, model: ModelFacts | None) -> ModelStatus | None:
    return None if model is None else ModelStatus(uri=spec.model.uri, **dataclasses.asdict(model))


def _plan(situation: Situation) -> PlanStatus | None:
    """The plan that the pods are made by. While nothing can be planned, and while they keep a template that would be
    another one today, that is the plan of before."""
    workload, before = situation.decision.workload, PlanStatus.remembered(situation.before.get("plan"))
    if workload is not None and (before is None or situation.newest_template is None):
        return _plan_status(workload.placement)
    return before if situation.deployment is not None else None


def _plan_status(placement: Placement) -> PlanStatus:
    demand, gpu = placement.demand, placement.gpu
    chosen = None
    if gpu is not None:
        chosen = GpuClass(product=gpu.product, memory_mib=gpu.memory_mib, gpus_per_node=gpu.gpus_per_node)
    return PlanStatus(
        gpu=placement.title,
        gpu_class=chosen,
        tensor_parallel=placement.tensor_parallel,
        max_model_len=demand.max_model_len,
        max_num_seqs=demand.max_num_seqs,
        kv_tokens=placement.kv_tokens,
        kv_bytes_per_token=demand.kv_bytes_per_token(placement.tensor_parallel),
        weight_bytes=demand.weight_bytes(placement.tensor_parallel),
        arithmetic=placement.arithmetic,
    )


def _cache(situation: Situation) -> CacheStatus | None:
    model, found = situation.decision.model, model_cached(situation)
    total = model.download_bytes if model is not None else None
    if found.holds:
        return CacheStatus(state="Ready", bytes=total, total=total, percent=100)
    progress = situation.progress
    if progress is None or progress.stage is not Stage.PULLING:
        return CacheStatus(state="Pending", total=total) if situation.claim is not None else None
    percent = None if progress.percent is None else int(progress.percent)
    return CacheStatus(
        state="Pulling" if percent is None else f"{percent}%",
        bytes=progress.bytes_done,
        total=progress.bytes_total if progress.bytes_total is not None else total,
        percent=percent,
        eta_seconds=None if progress.eta_seconds is None else round(progress.eta_seconds),
    )


def _queue(situation: Situation) -> QueueStatus | None:
    """Summed over the pods that answered and stay; None where none did."""
    names = {pod["metadata"]["name"] for pod in situation.facts.pods if not is_leaving(pod)}
    reports = [report for name, report in situation.facts.reports.items() if name in names]
    answered = [report for report in reports if report.waiting is not None]
    if not answered:
        return None
    return QueueStatus(
        waiting=sum(report.waiting or 0 for report in answered), running=sum(report.running or 0 for report in answered)
    )
