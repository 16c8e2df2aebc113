"""A step's works through a fused decoder on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pagoda_engine.core.engine import Launched, Sample
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.kernels.triton.sampler import Draws, sample
from pagoda_engine.model.attention import LayerCache
from pagoda_engine.model.gpu.attention import Decoding, Mixed, Plans
from pagoda_engine.model.gpu.decoder import Attend, Tokens, logits_into
from pagoda_engine.model.gpu.execution import Execution
from pagoda_engine.model.gpu.inputs import Draft, StepInputs
from pagoda_engine.model.gpu.tables import BlockTables
from pagoda_engine.model.gpu.weights import Weights
from pagoda_engine.model.logits.distribution import uniform
from pagoda_engine.model.sampler import NOT_FINITE, Choice, choose, unedited
from pagoda_engine.model.transfer import Download, upload

_HOTTEST: Final = 1e30  # no token's logit makes a difference long before
_MOST: Final = 2**31 - 1
_KNOWN: Final = -1  # the source of a token whose id the host knows


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a step may bring: tokens, sequences, rows of logits; and tokens of one sequence.

    `sizes` are the numbers of sequences for which a step of decoding is prepared, the largest of them `sequences`.
    """

    tokens: int
    sequences: int
    rows: int
    context: int
    sizes: tuple[int, ...]


class GpuRunner:
    """`core.engine.Runner` in two ways: steps in which all works are one token run prepared, others as they come.

    What was sampled last stays on the device, by row of logits; the next step's tokens that the host has not read yet
    are taken from there.
    """

    def __init__(
        self, weights: Weights, cache: tuple[LayerCache, ...], block_size: int, limits: Limits, execution: Execution
    ) -> None:
        device = weights.embedding.device
        self.overlaps = execution.overlaps
        self._weights = weights
        self._cache = cache
        self._block_size = block_size
        self._limits = limits
        self._execution = execution
        self._plans = Plans(weights, limits.sizes, device)
        self._tables = BlockTables(2 * limits.sequences, -(-limits.context // block_size), device)
        self._decoding = StepInputs(limits.sequences, limits.sequences, limits.sequences, device)
        self._mixed = StepInputs(limits.tokens, limits.sequences, limits.rows, device)
        self._logits = torch.zeros(limits.rows, weights.vocabulary, dtype=weights.embedding.dtype, device=device)
        self._sampled = torch.zeros(limits.rows, dtype=torch.int64, device=device)
        self._sampled_rows: dict[Request, int] = {}

    @torch.inference_mode()
    def prepare(self, sizes: tuple[int, ...] | None = None) -> None:
        """Get the prepared steps ready, all of the limits' or some of these."""
        self._execution.prepare(sizes or self._limits.sizes, self._decode)

    @torch.inference_mode()
    def launch(self, batch: Sequence[Work]) -> Launched:
        prepared = all(len(work) == 1 and len(work.rows) == 1 for work in batch)
        inputs = self._decoding if prepared else self._mixed
        draft = inputs.draft()
        self._write(draft, batch)
        inputs.send(draft)
        count = sum(len(work.rows) for work in batch)
        if prepared:
            self._execution.run(min(size for size in self._limits.sizes if size >= len(batch)))
        else:
            self._compute_mixed(sum(map(len, batch)), len(batch), count)
        return self._collect(batch, count)

    def _write(self, draft: Draft, batch: Sequence[Work]) -> None:
        """Write the works into a draft, and their new blocks into the tables.

        By lists, since a step may hold hundreds of works of one token, and numpy is slow at single numbers.
        """
        tables, places, values = self._tables.place([work.request for work in batch])
        if places:
            self._tables.write(self._upload(places), self._upload(values))
        ids: list[int] = []
        sources: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        rows: list[int] = []
        starts = [0]
        for work in batch:
            if work.in_flight:
                ids.append(0)
                sources.append(self._sampled_rows[work.request])
            else:
                ids += work.known
                sources += [_KNOWN] * len(work)
            positions += range(work.start, work.stop)
            slots += _slots(work, self._block_size)
            starts.append(len(ids))
            rows += range(len(ids) - len(work.rows), len(ids))
            if work.samples and not work.request.params.greedy:
                _write_draw(draft, len(rows) - 1, work)
        for name, numbers in (("ids", ids), ("sources", sources), ("positions", positions), ("slots", slots)):
            draft[name][: len(numbers)] = numbers
        draft["rows"][: len(rows)] = rows
        draft["starts"][: len(starts)] = starts
        draft["tables"][: len(batch)] = tables
        draft["contexts"][: len(batch)] = [work.stop for work in batch]

    def _decode(self, size: int) -> None:
        """A step of `size` sequences with one token each; all that changes from one to the next is in `_decoding`."""
        inputs = self._decoding
        tables = self._tables.tensor.index_select(0, inputs.on_device("tables", size))
        plans = self._plans.fill(size, inputs.on_device("contexts", size))
        self._compute(inputs, size, size, Decoding(self._plans, plans, tables), rows=None)

    def _compute_mixed(self, tokens: int, sequences: int, count: int) -> None:
        inputs = self._mixed
        tables = self._tables.tensor.index_select(0, inputs.on_device("tables", sequences))
        starts = inputs.on_device("starts", sequences + 1)
        contexts = inputs.on_device("contexts", sequences)
        plans = self._plans.fill(self._limits.sequences, contexts, starts)
        attend = Mixed(self._plans, plans, tables, starts, contexts)
        self._compute(inputs, tokens, count, attend, inputs.on_device("rows", count))

    def _compute(self, inputs: StepInputs, tokens: int, count: int, attend: Attend, rows: Tensor | None) -> None:
        ids, sources, positions, slots = (
            inputs.on_device(name, tokens) for name in ("ids", "sources", "positions", "slots")
        )
        flat = Tokens(ids, sources, positions, slots, self._sampled)
        logits = self._logits[:count]
        logits_into(logits, self._weights, self._cache, flat, attend, rows)
        draws = Draws(
            *(inputs.on_device(name, count) for name in ("temperature", "top_k", "top_p", "min_p", "uniform"))
        )
        sample(logits, draws, self._sampled[:count])

    def _collect(self, batch: Sequence[Work], count: int) -> Launched:
        """Have the tokens read, those with edited logits after they are chosen anew."""
        self._sampled_rows = {}
        edited: list[Work] = []
        rows: list[int] = []
        replaced: list[int] = []
        places: list[int | None] = []  # of each work with rows: its row, or None if it is edited
        row = 0
        for work in batch:
            if not work.rows:
                continue
            last = row + len(work.rows) - 1
            if work.samples:
                self._sampled_rows[work.request] = last
            if unedited(work):
                places.append(last)
            else:
                places.append(None)
                edited.append(work)
                rows += range(row, last + 1)
                replaced += [last] * work.samples
            row = last + 1
        choice = None
        if edited:
            choice = choose(self._logits.index_select(0, self._upload(rows)), edited)
            if replaced:
                self._sampled.index_copy_(0, self._upload(replaced), choice.tokens)
        return _Step(Download(self._sampled[:count]), places, choice)

    def _upload(self, values: list[int]) -> Tensor:
        return upload(values, torch.int64, self._sampled.device)


def _slots(work: Work, block_size: int) -> list[int]:
    """Where the keys and values of a work's tokens go."""
    blocks, start = work.request.blocks, work.start
    if len(work) == 1:
        return [blocks[start // block_size] * block_size + start % block_size]
    first = start // block_size
    table = np.array(blocks[first : (work.stop - 1) // block_size + 1])
    positions = np.arange(start, work.stop)
    slots: list[int] = (table[positions // block_size - first] * block_size + positions % block_size).tolist()
    return slots


def _write_draw(draft: Draft, row: int, work: Work) -> None:
    params = work.request.params
    draft["temperature"][row] = min(params.temperature, _HOTTEST)
    draft["top_k"][row] = min(params.top_k, _MOST)
    draft["top_p"][row] = params.top_p
    draft["min_p"][row] = params.min_p
    draft["uniform"][row] = uniform(work.request.seed, work.stop)


@dataclass(frozen=True, slots=True)
class _Step:
    """A launched step: its tokens by row, and whose rows were left to the general sampler."""

    tokens: Download
    places: list[int | None]
    choice: Choice | None

    def samples(self) -> list[Sample]:
        [tokens] = self.tokens.read()
        chosen = iter(self.choice.read() if self.choice else [])
        return [next(chosen) if place is None else _sample(tokens[place]) for place in self.places]


def _sample(token: int) -> Sample:
    return Sample(error=NOT_FINITE) if token < 0 else Sample(token)
