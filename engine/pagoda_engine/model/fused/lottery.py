"""Tokens chosen at random, after a step, from its logits as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagoda_engine.core.scheduler import Work
from pagoda_engine.kernels.cpu.draw import Draws, draw
from pagoda_engine.kernels.cpu.jit import prepare
from pagoda_engine.kernels.cpu.step import Buffers
from pagoda_engine.kernels.cpu.team import Team
from pagoda_engine.kernels.cpu.work import Shared
from pagoda_engine.model.logits.distribution import uniform


class Lottery:
    """Draws from rows of a team's logits, whose largest are known, by the parameters of their works."""

    def __init__(self, team: Team, buffers: Buffers, vocabulary: int) -> None:
        self._team = team
        self._buffers = buffers
        self._vocabulary = vocabulary
        self._weights = np.zeros(team.size * buffers.logits_stride, np.float32)

    def draw(self, rows: Sequence[int], works: Sequence[Work]) -> list[int]:
        """The token of each work, from its row of logits. Their largest logits must be finite."""
        job = self._job(rows, works)
        self._team.run(job)
        found: list[int] = job.tokens.tolist()
        return found

    def prepare(self) -> None:
        """Load the machine code, or compile it."""
        prepare(draw, *self._job([], []).arguments(0, self._team.words))

    def _job(self, rows: Sequence[int], works: Sequence[Work]) -> _Job:
        params = [work.request.params for work in works]
        draws = Draws(
            rows=np.array(rows, np.int64),
            temperatures=np.array([p.temperature for p in params], np.float32),
            top_ks=np.array([min(p.top_k, self._vocabulary) for p in params], np.int64),
            top_ps=np.array([p.top_p for p in params], np.float64),
            min_ps=np.array([p.min_p for p in params], np.float32),
            uniforms=np.array([uniform(work.request.seed, work.stop) for work in works], np.float64),
        )
        return _Job(draws, self._buffers, self._vocabulary, self._weights, np.zeros(len(rows), np.int64))


@dataclass(frozen=True, slots=True)
class _Job:
    """All draws, as the team's threads share them."""

    draws: Draws
    buffers: Buffers
    vocabulary: int
    weights: np.ndarray
    tokens: np.ndarray

    def arguments(self, thread: int, words: Shared) -> tuple[Any, ...]:
        b = self.buffers
        return (
            words, 0, self.draws, b.logits, b.logits_stride, self.vocabulary, b.best_values, self.weights,
            thread * b.logits_stride, self.tokens,
        )  # fmt: skip

    def __call__(self, thread: int, words: Shared) -> None:
        draw(*self.arguments(thread, words))
