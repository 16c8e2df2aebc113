"""The memory arithmetic of one replica, in bytes on each of its devices.

    usable = weights / TP + activations + overhead + KV cache

What the engine must hold at its busiest, estimated from above; the KV cache gets the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pagoda_engine.contract import ModelFacts

GPU_OVERHEAD: Final = 1 << 30
"""CUDA context, cuBLAS workspaces, CUDA graphs and the allocator's slack on one GPU."""
PEER_OVERHEAD: Final = 1 << 29
"""NCCL's buffers, on each GPU of a group of two or more."""
CPU_OVERHEAD: Final = 3 << 29
"""Two Python processes with their libraries, and the allocator's slack."""

ACTIVATION_COPIES: Final = 14
"""Widths of the residual stream alive at once for each token of a step: two residuals, q, k and v, attention's output,
and gate, up and their product, each up to 3.5 times as wide."""

DTYPE_BYTES: Final = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of one replica: a model in a dtype, a context length, and how much it may do at once."""

    model: ModelFacts
    dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int

    @property
    def dtype_bytes(self) -> int:
        return DTYPE_BYTES.get(self.dtype, 2)

    def weight_bytes(self, tensor_parallel: int) -> int:
        """Weights on one device."""
        total = self.model.weight_bytes * self.dtype_bytes // DTYPE_BYTES.get(self.model.dtype, 2)
        return -(-total // tensor_parallel)

    def kv_bytes_per_token(self, tensor_parallel: int) -> int:
        """Keys and values of one token on one device. KV heads are replicated where there are more devices."""
        heads = max(1, self.model.num_kv_heads // tensor_parallel)
        return 2 * self.model.num_layers * heads * self.model.head_dim * self.dtype_bytes

    def activation_bytes(self) -> int:
        """The largest step: every token of the budget at once, and each request's logits in float32, twice to sort."""
        tokens = self.max_num_batched_tokens * self.model.hidden_size * self.dtype_bytes * ACTIVATION_COPIES
        return tokens + self.max_num_seqs * self.model.vocab_size * 4 * 2

    def kv_bytes_wanted(self, tensor_parallel: int) -> int:
        """The KV cache of one sequence of full length, on one device: the least that can serve."""
        return self.max_model_len * self.kv_bytes_per_token(tensor_parallel)


def size(number_of_bytes: int) -> str:
    """For people: `14.2 GiB`."""
    unit, name = (2**30, "GiB") if abs(number_of_bytes) >= 2**30 else (2**20, "MiB")
    return f"{number_of_bytes / unit:.1f} {name}"
