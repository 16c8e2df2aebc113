"""One way to place a replica, tried: so many GPUs of one class, and whether that can work."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda_engine.contract import tensor_parallel_problem
from pagoda_operator.planner.gpus import GpuClass
from pagoda_operator.planner.memory import GPU_OVERHEAD, PEER_OVERHEAD, Demand, size


@dataclass(frozen=True, slots=True)
class GpuOption:
    """`tensor_parallel` GPUs of `gpu`; everything else is computed."""

    demand: Demand
    gpu: GpuClass
    tensor_parallel: int
    utilization: float

    @property
    def title(self) -> str:
        return f"{self.tensor_parallel}x {self.gpu.title}"

    @property
    def usable_bytes(self) -> int:
        return int(self.gpu.memory_mib * 2**20 * self.utilization)

    @property
    def overhead_bytes(self) -> int:
        return GPU_OVERHEAD + (PEER_OVERHEAD if self.tensor_parallel > 1 else 0)

    @property
    def kv_bytes(self) -> int:
        """What is left for the KV cache on each GPU; negative where not even the weights fit."""
        fixed = self.demand.weight_bytes(self.tensor_parallel) + self.demand.activation_bytes()
        return self.usable_bytes - fixed - self.overhead_bytes

    @property
    def kv_tokens(self) -> int:
        return max(0, self.kv_bytes // self.demand.kv_bytes_per_token(self.tensor_parallel))

    def arithmetic(self) -> tuple[str, ...]:
        """How it was reckoned, line by line."""
        model, tp = self.demand.model, self.tensor_parallel
        heads = max(1, model.num_kv_heads // tp)
        step = f"{self.demand.max_num_batched_tokens} tokens and {self.demand.max_num_seqs} requests"
        factors = f"2 x {model.num_layers} layers x {heads} heads x {model.head_dim} x {self.demand.dtype_bytes} bytes"
        sequences = f"{self.kv_tokens / self.demand.max_model_len:.1f} sequences of {self.demand.max_model_len}"
        return (
            f"usable: {self.gpu.memory_mib} MiB x {self.utilization:g} = {size(self.usable_bytes)} on each GPU",
            f"weights: {size(self.demand.weight_bytes(1))} / {tp} = {size(self.demand.weight_bytes(tp))}",
            f"activations: {size(self.demand.activation_bytes())} for steps of {step}",
            f"context: {size(self.overhead_bytes)}",
            f"KV cache: usable - weights - activations - context = {size(self.kv_bytes)}",
            f"KV per token: {factors} = {self.demand.kv_bytes_per_token(tp)} bytes",
            f"KV tokens: {self.kv_tokens}, {sequences}",
        )

    def problem(self) -> str | None:
        """Why this can't serve, with the arithmetic, as a sentence without a full stop; None where it can."""
        return self.shape_problem() or self.memory_problem()

    def shape_problem(self) -> str | None:
        model, tp = self.demand.model, self.tensor_parallel
        if problem := tensor_parallel_problem(tp, model.num_attention_heads, model.num_kv_heads):
            return problem
        if tp > self.gpu.gpus_per_node:
            return f"TP {tp} needs {tp} GPUs on one node, and no node has more than {self.gpu.gpus_per_node}"
        if self.gpu.shared:
            return "the GPU is time-sliced, so that its memory is shared with other pods and can't be planned with"
        if self.gpu.partitioned and tp > 1:
            return "MIG slices can't be joined by tensor parallelism"
        return None

    def memory_problem(self) -> str | None:
        tp, weights = self.tensor_parallel, self.demand.weight_bytes(self.tensor_parallel)
        sums = (
            f"{size(self.usable_bytes)} usable - {size(weights)} weights - "
            f"{size(self.demand.activation_bytes())} activations - {size(self.overhead_bytes)} context"
        )
        if self.kv_bytes <= 0:
            return f"{sums} leaves nothing for the KV cache"
        if self.kv_tokens < self.demand.max_model_len:
            wanted = self.demand.kv_bytes_wanted(tp)
            return (
                f"{sums} leaves {size(self.kv_bytes)} for the KV cache, {self.kv_tokens} tokens, and one sequence of "
                f"{self.demand.max_model_len} needs {size(wanted)}"
            )
        return None
