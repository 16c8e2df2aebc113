"""One forward pass of the model for the works of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from pagoda_engine.core.engine import Computed, Launched, Sample
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.attention import KernelsForStep, LayerCache, Layout, PagedStep
from pagoda_engine.model.sampler import Choice, choose


class ModelRunner:
    """`core.engine.Runner` over a transformers model whose attention is ours.

    All tokens of all works stand in one row, [1, tokens]; logits are computed only where a next token is wanted. The
    chosen tokens stay on the device too, where the next launch takes those that the host has not read yet.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: tuple[LayerCache, ...],
        block_size: int,
        kernels: KernelsForStep,
        *,
        overlaps: bool,
    ) -> None:
        self.overlaps = overlaps
        self.device: torch.device = model.device
        self._model = model
        self._layers = layers
        self._block_size = block_size
        self._kernels = kernels
        self._rows: dict[Request, int] = {}  # of the latest launch: who has which row of what was chosen
        self._chosen: torch.Tensor | None = None

    @torch.inference_mode()
    def launch(self, batch: Sequence[Work]) -> Launched:
        layout = self._layout(batch)
        positions = [position for work in batch for position in range(work.start, work.stop)]
        sampled = [index for index, work in enumerate(batch) if work.samples]
        output = self._model(
            input_ids=self._ids(batch, layout)[None],
            position_ids=self._tensor(positions)[None],
            use_cache=False,
            logits_to_keep=self._tensor([layout.starts[index + 1] - 1 for index in sampled] or [0]),
            pagoda_step=PagedStep(self._kernels(layout), self._layers),
        )
        self._rows = {batch[index].request: row for row, index in enumerate(sampled)}
        if not sampled:
            return Computed([])
        choice = choose(output.logits[0], [batch[index] for index in sampled])
        self._chosen = choice.tokens
        return _Pass(choice)

    def _ids(self, batch: Sequence[Work], layout: Layout) -> torch.Tensor:
        """Token ids, those in flight from what the launch before has chosen."""
        ids = self._tensor([token for work in batch for token in (work.known or [0])])
        at = [index for index, work in enumerate(batch) if work.in_flight]
        if at and self._chosen is not None:
            rows = self._tensor([self._rows[batch[index].request] for index in at])
            ids.index_copy_(0, self._tensor([layout.starts[index] for index in at]), self._chosen[rows])
        return ids

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
        """On the device, without waiting for it: only a copy from pinned memory does not."""
        if self.device.type == "cpu":
            return torch.tensor(values, dtype=torch.int64)
        return torch.tensor(values, dtype=torch.int64, pin_memory=True).to(self.device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _Pass:
    """A launch whose choice is on its way to the host."""

    choice: Choice

    def samples(self) -> list[Sample]:
        return self.choice.read()
