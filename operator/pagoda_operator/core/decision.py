"""The first half of a plan: which model, where, and by whose leave; or why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pagoda_engine.contract import ModelFacts
from pagoda_operator.api.names import Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.api.status import GpuClass as GpuClassStatus
from pagoda_operator.api.status import ModelStatus
from pagoda_operator.builders.workload import Workload
from pagoda_operator.core.conditions import Finding, no, unknown, yes
from pagoda_operator.core.facts import Facts, ModelUnreadable
from pagoda_operator.core.scaler import scaling
from pagoda_operator.core.settings import Settings
from pagoda_operator.planner.gpus import GpuClass, gpu_classes, unlabelled
from pagoda_operator.planner.nodes import PRODUCT_LABEL
from pagoda_operator.planner.placement import Unplaced, place

RETRY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Decision:
    """`workload` is None where nothing can be planned; `planned` then says why."""

    planned: Finding
    workload: Workload | None = None
    model: ModelFacts | None = None
    rejected: tuple[str, ...] = ()
    requeue_after: float | None = None


def decide(service: Object, spec: Spec, facts: Facts, settings: Settings, replicas: int) -> Decision:
    model = _known_model(service, spec, facts)
    if model is None:
        return _without_model(facts.model)
    tolerations = (*settings.tolerations, *(t.model_dump(by_alias=True, exclude_none=True) for t in spec.tolerations))
    admitted = gpu_classes(facts.nodes, facts.requested, spec.node_selector, tolerations)
    current = _current_class(service, spec, facts, admitted)
    unknown = unlabelled(facts.nodes, spec.node_selector, tolerations)
    placement = place(spec, model, admitted, unlabelled=unknown, current=current)
    if isinstance(placement, Unplaced):
        return Decision(no(placement.reason, placement.message), model=model, rejected=placement.rejected)
    workload = Workload(
        name=service["metadata"]["name"],
        namespace=service["metadata"]["namespace"],
        uid=service["metadata"]["uid"],
        spec=spec,
        replicas=replicas,
        placement=placement,
        download_bytes=model.download_bytes,
        image=settings.engine_image,
        bind_host=settings.bind_host,
        port=settings.engine_port,
        drain_delay=settings.drain_delay,
        shutdown_timeout=settings.shutdown_timeout,
        run_as_user=settings.run_as_user,
        env=settings.engine_env,
        tolerations=settings.tolerations,
        scaling=scaling(service, spec.autoscaling, facts, settings),
    )
    message = (
        f"{placement.title} for each replica, {placement.kv_tokens} tokens of KV cache; see status.plan.arithmetic"
    )
    return Decision(yes("Planned", message), workload, model, placement.rejected)


def _known_model(service: Object, spec: Spec, facts: Facts) -> ModelFacts | None:
    """What was just read, or what an earlier status remembers of the same URI: a hub that is down, or an operator that
    restarts, changes nothing about a service that was planned."""
    if isinstance(facts.model, ModelFacts):
        return facts.model
    remembered = ModelStatus.remembered(service.get("status", {}).get("modelFacts"))
    if remembered is None or remembered.uri != spec.model.uri:
        return None
    return ModelFacts(**remembered.model_dump(exclude={"uri"}))


def _without_model(model: ModelFacts | ModelUnreadable | None) -> Decision:
    if isinstance(model, ModelUnreadable):
        if model.permanent:
            return Decision(no("ModelUnreadable", model.message))
        return Decision(no("ModelUnreadable", f"{model.message}; it is tried again"), requeue_after=RETRY_SECONDS)
    return Decision(unknown("ReadingModel", "the model's configuration is being read"))


def _current_class(service: Object, spec: Spec, facts: Facts, admitted: tuple[GpuClass, ...]) -> GpuClass | None:
    """The class that the service was planned on, if it may stay there. Where no node of it is left, it stands for a
    node pool that is scaled to zero; where nodes of it are left but none admits the pods, the spec is to blame."""
    known = GpuClassStatus.remembered(service.get("status", {}).get("plan", {}).get("gpuClass"))
    if known is None:
        return None
    product = known.product
    for gpu in admitted:
        if gpu.product == product:
            return gpu
    visible = any(node.labels.get(PRODUCT_LABEL) == product for node in facts.nodes)
    if visible or spec.node_selector.get(PRODUCT_LABEL, product) != product:
        return None
    return GpuClass(product, known.memory_mib, known.gpus_per_node)
