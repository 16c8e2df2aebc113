"""Paged attention on an NVIDIA GPU, by our Triton kernels; `TorchAttention` is its twin.

Made once for each step: what the kernels read of the batch goes to the device in one copy, and the plan of a decode
step is made when the first layer with its window asks for it.
"""

from __future__ import annotations

from itertools import chain, pairwise

import torch
from torch import Tensor

from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.kernels.triton.decode_attention import DecodeSpace, decode
from pagoda_engine.kernels.triton.decode_plan import DecodePlan
from pagoda_engine.kernels.triton.kv_write import write_kv
from pagoda_engine.kernels.triton.prefill_attention import prefill
from pagoda_engine.model.attention import AttentionOptions, LayerCache, Layout


class TritonAttention:
    """`AttentionKernels` on the GPU that `chip` describes."""

    def __init__(self, layout: Layout, chip: Chip) -> None:
        self._slots = layout.slots
        self._chip = chip
        counts = [stop - start for start, stop in pairwise(layout.starts)]
        self._decodes = 1 in counts
        self._prefills = any(count > 1 for count in counts)
        sequences, width = len(counts), max(map(len, layout.tables))
        tables = (table + (0,) * (width - len(table)) for table in layout.tables)
        index = torch.tensor([*layout.starts, *layout.contexts, *chain.from_iterable(tables)], dtype=torch.int32)
        if layout.slots.is_cuda:
            index = index.pin_memory().to(layout.slots.device, non_blocking=True)
        self._starts = index[: sequences + 1]
        self._contexts = index[sequences + 1 : 2 * sequences + 1]
        self._tables = index[2 * sequences + 1 :].view(sequences, width)
        self._plans: dict[tuple[int, int | None], DecodePlan] = {}
        self._spaces: dict[tuple[DecodePlan, int, int], DecodeSpace] = {}

    def write_kv(self, layer: LayerCache, keys: Tensor, values: Tensor) -> None:
        write_kv(layer, _rows(keys), _rows(values), self._slots)

    def paged_attention(self, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        queries = _rows(queries)
        _, heads, _ = queries.shape
        _, _, kv_heads, value_dim = layer.values.shape
        out = queries.new_empty(len(queries), heads, value_dim)
        if self._decodes:
            plan = self._plan(kv_heads, options.window)
            space = self._space(plan, heads, value_dim)
            decode(queries, layer, self._tables, plan, space, out, options, starts=self._starts)
        if self._prefills:
            prefill(queries, layer, self._tables, self._starts, self._contexts, out, options)
        return out

    def _plan(self, kv_heads: int, window: int | None) -> DecodePlan:
        key = (kv_heads, window)
        if key not in self._plans:
            plan = DecodePlan.allocate(len(self._contexts), kv_heads, self._chip, self._contexts.device)
            plan.fill(self._contexts, starts=self._starts, window=window)
            self._plans[key] = plan
        return self._plans[key]

    def _space(self, plan: DecodePlan, heads: int, value_dim: int) -> DecodeSpace:
        key = (plan, heads, value_dim)
        if key not in self._spaces:
            self._spaces[key] = DecodeSpace.allocate(plan, heads, value_dim)
        return self._spaces[key]


def _rows(x: Tensor) -> Tensor:
    """The tensor itself if its last dimension is contiguous, as the kernels want it."""
    return x if x.stride(-1) == 1 else x.contiguous()
