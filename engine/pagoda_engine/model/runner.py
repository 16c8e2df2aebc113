"""One forward pass of the model for the works of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from pagoda_engine.core.engine import Sample
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.attention import KernelsForStep, LayerCache, Layout, PagedStep
from pagoda_engine.model.sampler import sample


class ModelRunner:
    """`core.engine.Runner` over a transformers model whose attention is ours.

    All tokens of all works stand in one row, [1, tokens]; logits are computed only where a next token is wanted.
    """

    def __init__(
        self, model: PreTrainedModel, layers: tuple[LayerCache, ...], block_size: int, kernels: KernelsForStep
    ) -> None:
        self._model = model
        self._layers = layers
        self._block_size = block_size
        self._kernels = kernels
        self.device: torch.device = model.device

    @torch.inference_mode()
    def run(self, batch: Sequence[Work]) -> list[Sample]:
        tokens = [token for work in batch for token in work.request.tokens[work.start : work.stop]]
        positions = [position for work in batch for position in range(work.start, work.stop)]
        layout = self._layout(batch)
        sampled = [index for index, work in enumerate(batch) if work.samples]
        output = self._model(
            input_ids=self._tensor(tokens)[None],
            position_ids=self._tensor(positions)[None],
            use_cache=False,
            logits_to_keep=self._tensor([layout.starts[index + 1] - 1 for index in sampled] or [0]),
            pagoda_step=PagedStep(self._kernels(layout), self._layers),
        )
        if not sampled:
            return []
        return sample(output.logits[0], [batch[index].request for index in sampled])

    def _layout(self, batch: Sequence[Work]) -> Layout:
        size = self._block_size
        starts, slots = [0], []
        for work in batch:
            blocks = work.request.blocks
            slots += [blocks[at // size] * size + at % size for at in range(work.start, work.stop)]
            starts.append(starts[-1] + len(work))
        return Layout(
            starts=tuple(starts),
            contexts=tuple(work.stop for work in batch),
            slots=self._tensor(slots),
            tables=tuple(tuple(work.request.blocks) for work in batch),
            block_size=size,
        )

    def _tensor(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)
