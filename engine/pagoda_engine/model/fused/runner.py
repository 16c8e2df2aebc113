"""A step's works through the fused decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np
import torch

from pagoda_engine.core.engine import Computed, Sample
from pagoda_engine.core.scheduler import Work
from pagoda_engine.kernels.cpu.jit import prepare
from pagoda_engine.kernels.cpu.step import Batch, Buffers, Shape, Weights, forward, phases
from pagoda_engine.kernels.cpu.team import Team
from pagoda_engine.kernels.cpu.work import Shared, prepare_gates
from pagoda_engine.model.fused.batch import BatchWriter
from pagoda_engine.model.fused.lottery import Lottery
from pagoda_engine.model.fused.parts import Decoder
from pagoda_engine.model.fused.room import Limits, cache_places, make_batch, make_buffers
from pagoda_engine.model.fused.takeover import shape_of, take_over
from pagoda_engine.model.sampler import choose, unedited


class FusedRunner:
    """`core.engine.Runner` on the CPU's kernels, over blocks of sixteen tokens.

    Its threads are the processor's: while they compute there is none to schedule the next step on.
    """

    overlaps: Final = False

    def __init__(self, decoder: Decoder, limits: Limits, threads: int) -> None:
        """Takes the decoder's weights over: its modules are empty afterwards."""
        shape = shape_of(decoder)
        self._team = Team(threads, phases(shape, limits.tokens))
        arrays: Batch = make_batch(shape, limits)
        self._writer = BatchWriter(arrays, shape.heads // shape.kv_heads)
        buffers = make_buffers(shape, limits, threads)
        weights = take_over(decoder, cache_places(shape))
        self._job = _Job(shape, weights, buffers, arrays)
        self._lottery = Lottery(self._team, buffers, shape.vocabulary)
        self._best, self._best_values = buffers.best, buffers.best_values
        rows = buffers.logits.reshape(-1, buffers.logits_stride)[:, : shape.vocabulary]
        self._logits = torch.from_numpy(rows)

    def prepare(self) -> None:
        """Load all machine code, or compile it: some ten seconds, once in an installation's life."""
        prepare_gates(self._team.words)
        self._job.prepare(self._team.words)
        self._lottery.prepare()

    @torch.inference_mode()
    def launch(self, batch: Sequence[Work]) -> Computed:
        self._writer.write(batch)
        self._team.run(self._job)
        works = [work for work in batch if work.rows]
        ends = list(accumulate(len(work.rows) for work in works))
        lasts = [end - 1 for end in ends]
        samples = [Sample(token) for token in self._best[lasts].tolist()]
        finite = np.isfinite(self._best_values[lasts]).tolist()
        own = [at for at, work in enumerate(works) if unedited(work) and finite[at]]
        drawn = [at for at in own if not works[at].request.params.greedy]
        if drawn:
            tokens = self._lottery.draw([lasts[at] for at in drawn], [works[at] for at in drawn])
            for at, token in zip(drawn, tokens, strict=True):
                samples[at] = Sample(token)
        others = sorted(set(range(len(works))).difference(own))
        if others:
            rows = [row for at in others for row in range(ends[at] - len(works[at].rows), ends[at])]
            choice = choose(self._logits[rows], [works[at] for at in others])
            for at, sample in zip(others, choice.read(), strict=True):
                samples[at] = sample
        return Computed(samples)


class _Job:
    """One step, as the team's threads run it."""

    def __init__(self, shape: Shape, weights: Weights, buffers: Buffers, batch: Batch) -> None:
        self._args = (shape, weights, buffers, batch)

    def prepare(self, words: Shared) -> None:
        prepare(forward, 0, words, *self._args)

    def __call__(self, thread: int, words: Shared) -> None:
        forward(thread, words, *self._args)
