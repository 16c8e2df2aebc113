"""Attention of a step over the paged cache: Triton's kernels, and the plans and scratch that they share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.kernels.triton.decode_attention import DecodeSpace, decode
from pagoda_engine.kernels.triton.decode_plan import DecodePlan
from pagoda_engine.kernels.triton.prefill_attention import prefill
from pagoda_engine.model.attention import AttentionOptions, LayerCache
from pagoda_engine.model.gpu.weights import Weights


class Plans:
    """Room for the plans of steps of some sizes, one for each window that layers have, and the kernels' scratch."""

    def __init__(self, weights: Weights, sizes: tuple[int, ...], device: torch.device) -> None:
        layer = weights.layers[0]
        chip = Chip.of(device)
        self._plans = {
            (size, window): DecodePlan.allocate(size, layer.kv_heads, chip, device)
            for size in sizes
            for window in weights.windows
        }
        self._windows = weights.windows
        largest = self._plans[max(sizes), layer.options.window]
        self.space = DecodeSpace.allocate(largest, layer.heads, layer.dim)

    def fill(self, size: int, contexts: Tensor, starts: Tensor | None = None) -> dict[int | None, DecodePlan]:
        """The plans of a step by window; `size` is one of those given, at least the number of sequences."""
        plans = {window: self._plans[size, window] for window in self._windows}
        for window, plan in plans.items():
            plan.fill(contexts, starts=starts, window=window)
        return plans


@dataclass(frozen=True, slots=True)
class Decoding:
    """`decoder.Attend` where each sequence has one query, in order; a context of 0 is padding."""

    room: Plans
    plans: dict[int | None, DecodePlan]
    tables: Tensor

    def __call__(self, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        out = queries.new_empty(queries.shape)
        decode(queries, layer, self.tables, self.plans[options.window], self.room.space, out, options)
        return out


@dataclass(frozen=True, slots=True)
class Mixed:
    """`decoder.Attend` where sequences, which begin at `starts`, have one query or many."""

    room: Plans
    plans: dict[int | None, DecodePlan]
    tables: Tensor
    starts: Tensor
    contexts: Tensor

    def __call__(self, layer: LayerCache, queries: Tensor, options: AttentionOptions) -> Tensor:
        out = queries.new_empty(queries.shape)
        plan = self.plans[options.window]
        decode(queries, layer, self.tables, plan, self.room.space, out, options, starts=self.starts)
        prefill(queries, layer, self.tables, self.starts, self.contexts, out, options)
        return out
