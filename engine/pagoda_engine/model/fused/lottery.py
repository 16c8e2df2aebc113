"""Tokens chosen at random, after a step, from its logits as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pagoda_engine.core.scheduler import Work
from pagoda_engine.kernels.cpu.draw import Draws, draw
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
        params = [work.request.params for work in works]
        draws = Draws(
            rows=np.array(rows),
            temperatures=np.array([p.temperature for p in params], np.float32),
            top_ks=np.array([min(p.top_k, self._vocabulary) for p in params]),
            top_ps=np.array([p.top_p for p in params], np.float64),
            min_ps=np.array([p.min_p for p in params], np.float32),
            uniforms=np.array([uniform(work.request.seed, work.stop) for work in works]),
        )
        tokens = np.zeros(len(rows), np.int64)
        self._team.run(_Job(draws, self._buffers, self._vocabulary, self._weights, tokens))
        found: list[int] = tokens.tolist()
        return found


@dataclass(frozen=True, slots=True)
class _Job:
    """All draws, as the team's threads share them."""

    draws: Draws
    buffers: Buffers
    vocabulary: int
    weights: np.ndarray
    tokens: np.ndarray

    def __call__(self, thread: int, words: Shared) -> None:
        stride = self.buffers.logits_stride
        draw(
            words,
            0,
            self.draws,
            self.buffers.logits,
            stride,
            self.vocabulary,
            self.buffers.best_values,
            self.weights,
            thread * stride,
            self.tokens,
        )
