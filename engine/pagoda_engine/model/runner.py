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
from pagoda_engine.model.inputs import StepInputs
from pagoda_engine.model.parallel.group import Group
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
        group: Group | None = None,
    ) -> None:
        self.overlaps = overlaps
        self._group = group or Group.alone()
        self.device: torch.device = model.device
        self._model = model
        self._layers = layers
        self._block_size = block_size
        self._kernels = kernels
        self._rows: dict[Request, int] = {}  # of the latest launch: who has which row of what was chosen
        self._chosen: torch.Tensor | None = None

    def inputs(self, batch: Sequence[Work]) -> StepInputs:
        """The next launch of `batch` in numbers."""
        return StepInputs.of(batch, self._rows)

    @torch.inference_mode()
    def launch(self, batch: Sequence[Work], inputs: StepInputs | None = None) -> Launched:
        """`inputs` are those of `batch`, where they are known already."""
        inputs = inputs or self.inputs(batch)
        logits = self._compute(inputs)
        self._rows = {request: row for row, request in enumerate(work.request for work in batch if work.samples)}
        if not inputs.rows:
            return Computed([])
        choice = choose(logits, batch)
        if inputs.samples:
            self._keep(choice.tokens)
        return _Pass(choice)

    @torch.inference_mode()
    def follow(self, inputs: StepInputs) -> None:
        """The same pass where another rank chooses the tokens."""
        self._compute(inputs)
        if inputs.samples:
            self._keep(torch.empty(inputs.samples, dtype=torch.int64, device=self.device))

    def _keep(self, tokens: torch.Tensor) -> None:
        """Remember what was chosen for the next launch; rank 0's choice is everybody's."""
        if self.overlaps:
            self._chosen = self._group.broadcast(tokens)

    def _compute(self, inputs: StepInputs) -> torch.Tensor:
        """Logits [rows, vocabulary]."""
        ids = self._tensor(inputs.ids)
        if inputs.in_flight and self._chosen is not None:
            ids.index_copy_(0, self._tensor(inputs.in_flight), self._chosen[self._tensor(inputs.chosen)])
        layout = Layout(
            starts=inputs.starts,
            contexts=inputs.contexts,
            slots=self._tensor(list(inputs.slots(self._block_size))),
            tables=inputs.tables,
            block_size=self._block_size,
        )
        output = self._model(
            input_ids=ids[None],
            position_ids=self._tensor(list(inputs.positions()))[None],
            use_cache=False,
            logits_to_keep=self._tensor(inputs.rows or (0,)),
            pagoda_step=PagedStep(self._kernels(layout), self._layers),
        )
        logits: torch.Tensor = output.logits[0]
        return logits

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
