"""The choice: from a spec, a model's facts and the cluster's GPU classes to where one replica runs, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pagoda_engine.contract import EngineArgs, ModelFacts, tensor_parallel_sizes
from pagoda_operator.api.spec import Spec
from pagoda_operator.planner.gpus import GpuClass
from pagoda_operator.planner.memory import CPU_OVERHEAD, Demand, size
from pagoda_operator.planner.options import GpuOption

CPU_KV_BYTES: Final = 4 << 30
"""Most memory that the KV cache of a replica on a CPU is given, unless one sequence needs more (vLLM's default too)."""

_ENGINE: Final = EngineArgs(model="")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one replica runs. `gpu` is None for a CPU; `memory_bytes` is host memory; `rejected` one sentence each."""

    demand: Demand
    gpu: GpuClass | None
    tensor_parallel: int
    kv_bytes: int
    memory_bytes: int
    arithmetic: tuple[str, ...]
    rejected: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """`2x H100-80GB-HBM3` or `cpu`."""
        return "cpu" if self.gpu is None else f"{self.tensor_parallel}x {self.gpu.title}"

    @property
    def kv_tokens(self) -> int:
        return self.kv_bytes // self.demand.kv_bytes_per_token(self.tensor_parallel)


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Why no replica can run: a stable reason, a message that says the fix, and each rejected option."""

    reason: str
    message: str
    rejected: tuple[str, ...] = ()


def demand_of(spec: Spec, model: ModelFacts) -> Demand:
    """What the spec asks of one replica; the engine's own defaults where it is silent."""
    engine = spec.engine
    return Demand(
        model=model,
        dtype=model.dtype if engine.dtype == "auto" else engine.dtype,
        max_model_len=engine.max_model_len or model.max_model_len,
        max_num_seqs=engine.max_num_seqs or _ENGINE.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens or _ENGINE.max_num_batched_tokens,
    )


def place(
    spec: Spec,
    model: ModelFacts,
    classes: Sequence[GpuClass],
    *,
    unlabelled: Sequence[str] = (),
    current: GpuClass | None = None,
) -> Placement | Unplaced:
    """Choose for one replica. `auto` means GPUs as soon as a node that admits the pods has any, and else the CPU.

    classes     what the cluster has now, for pods of this spec
    unlabelled  such nodes with GPUs of unknown kind: they keep `auto` from falling back to the CPU
    current     the class that the service was planned on before, which it keeps while it fits: moving is a restart, and
                a node pool that was scaled to zero has no nodes to show
    """
    demand = demand_of(spec, model)
    if demand.max_model_len > model.max_model_len:
        return Unplaced(
            "ContextTooLong",
            f"spec.engine.maxModelLen is {demand.max_model_len}, and the model was made for {model.max_model_len} "
            f"tokens; set it to at most {model.max_model_len} or remove it",
        )
    no_gpus = not classes and not unlabelled and current is None
    if spec.accelerator == "cpu" or (spec.accelerator == "auto" and no_gpus):
        if (spec.parallelism.tensor or 1) > 1:
            return Unplaced(
                "NoGpuNodes",
                f"spec.parallelism.tensor is {spec.parallelism.tensor}, and no node with GPUs admits these pods; add "
                "one, or remove the field to run on the CPU",
            )
        return _on_cpu(demand)
    return _on_gpus(spec, demand, classes, unlabelled, current)


def _on_cpu(demand: Demand) -> Placement:
    per_token, weights = demand.kv_bytes_per_token(1), demand.weight_bytes(1)
    one, all_ = demand.kv_bytes_wanted(1), demand.max_num_seqs * demand.kv_bytes_wanted(1)
    kv_bytes = max(one, min(all_, CPU_KV_BYTES))
    memory = weights + kv_bytes + demand.activation_bytes() + CPU_OVERHEAD
    sequences = f"up to {demand.max_num_seqs} sequences of {demand.max_model_len}"
    return Placement(
        demand=demand,
        gpu=None,
        tensor_parallel=1,
        kv_bytes=kv_bytes,
        memory_bytes=memory,
        arithmetic=(
            f"weights: {size(weights)}",
            f"KV per token: {per_token} bytes",
            f"KV cache: {size(kv_bytes)}, {kv_bytes // per_token} tokens for {sequences}",
            f"activations: {size(demand.activation_bytes())}",
            f"processes: {size(CPU_OVERHEAD)}",
            f"memory: {size(memory)}",
        ),
    )


def _on_gpus(
    spec: Spec, demand: Demand, classes: Sequence[GpuClass], unlabelled: Sequence[str], current: GpuClass | None
) -> Placement | Unplaced:
    """Fewest GPUs first, then the smallest memory that suffices; a class that has room now before one that has not."""
    candidates = list(classes)
    if current is not None and not any(gpu.product == current.product for gpu in classes):
        candidates.append(current)
    fitting: list[GpuOption] = []
    rejected: list[GpuOption] = []
    for gpu in candidates:
        for tensor_parallel in _sizes(spec, demand, gpu):
            option = GpuOption(demand, gpu, tensor_parallel, spec.engine.gpu_memory_utilization)
            if option.problem() is None:
                fitting.append(option)
                break  # a larger group of the same class costs more and gains nothing that was asked for
            rejected.append(option)
    sentences = tuple(f"{option.title}: {option.problem()}" for option in rejected)
    if not fitting:
        return _unplaced(spec, demand, rejected, sentences, unlabelled)

    def preference(option: GpuOption) -> tuple[bool, bool, int, int, str]:
        stays = current is not None and option.gpu.product == current.product
        present = option.gpu in classes
        has_room = option.gpu.groups_free(option.tensor_parallel) > 0
        return (
            not (present and (stays or has_room)),
            not stays,
            option.tensor_parallel,
            option.gpu.memory_mib,
            option.gpu.product,
        )

    fitting.sort(key=preference)
    best = fitting[0]
    # Sorted apart from what is free at the moment, or the status would be written whenever somebody's pod starts.
    others = sorted(option.title for option in fitting[1:])
    passed_over = tuple(f"{title}: would fit; {best.title} was preferred" for title in others)
    return Placement(
        demand=demand,
        gpu=best.gpu,
        tensor_parallel=best.tensor_parallel,
        kv_bytes=best.kv_bytes,
        memory_bytes=_host_bytes(best),
        arithmetic=best.arithmetic(),
        rejected=sentences + passed_over,
    )


def _sizes(spec: Spec, demand: Demand, gpu: GpuClass) -> Sequence[int]:
    """Group sizes to try, smallest first: the user's, or those that divide the query heads and one node can hold."""
    if spec.parallelism.tensor is not None:
        return (spec.parallelism.tensor,)
    heads = demand.model.num_attention_heads
    return [n for n in range(1, min(gpu.gpus_per_node, heads) + 1) if n == 1 or heads % n == 0]


def _host_bytes(option: GpuOption) -> int:
    """Host memory of a replica on GPUs: each rank's process, and one shard of weights on its way to the device."""
    return option.tensor_parallel * (CPU_OVERHEAD + (2 << 30)) + min(option.demand.weight_bytes(1), 8 << 30)


def _unplaced(
    spec: Spec, demand: Demand, rejected: Sequence[GpuOption], sentences: tuple[str, ...], unlabelled: Sequence[str]
) -> Unplaced:
    if not rejected:
        if unlabelled:
            return Unplaced(
                "UnknownGpus",
                f"node {unlabelled[0]} has GPUs but not the labels nvidia.com/gpu.product and nvidia.com/gpu.memory; "
                "install GPU feature discovery, or label it",
            )
        return Unplaced(
            "NoGpuNodes",
            "no node with GPUs admits these pods: add one, mend spec.nodeSelector or spec.tolerations, or set "
            "spec.accelerator to cpu",
        )
    tried = [option for option in rejected if option.shape_problem() is None]
    if not tried:
        reason = "DoesNotFit" if spec.parallelism.tensor is None else "InvalidParallelism"
        first = rejected[0]
        return Unplaced(reason, f"{first.title}: {first.problem()}{_tensor_fix(spec, demand)}", sentences)
    best = max(tried, key=lambda option: (option.kv_tokens, option.kv_bytes))
    fix = "use a smaller or quantised model, or add larger GPUs"
    if best.kv_tokens > 0:
        fix = f"set spec.engine.maxModelLen to at most {best.kv_tokens}, or add larger GPUs"
    return Unplaced("DoesNotFit", f"{best.title}: {best.problem()}; {fix}", sentences)


def _tensor_fix(spec: Spec, demand: Demand) -> str:
    if spec.parallelism.tensor is None:
        return ""
    model = demand.model
    valid = tensor_parallel_sizes(model.num_attention_heads, model.num_kv_heads)
    return f"; set spec.parallelism.tensor to one of {', '.join(map(str, valid))}, or remove it"
