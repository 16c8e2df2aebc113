"""A step on all ranks, from rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagoda_engine.core.engine import Launched, Sample
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.parallel.ranks import Ranks
from pagoda_engine.model.runner import ModelRunner


class ParallelRunner:
    """`core.engine.Runner` over rank 0's own runner and the others. Raises EngineDied where one of them is gone."""

    def __init__(self, runner: ModelRunner, ranks: Ranks) -> None:
        self.overlaps = runner.overlaps
        self._runner = runner
        self._ranks = ranks

    def launch(self, batch: Sequence[Work]) -> Launched:
        with self._ranks.watched():
            inputs = self._runner.inputs(batch)
            # The others first, so that all compute at the same time.
            self._ranks.step(inputs.to_bytes())
            return _Watched(self._runner.launch(batch, inputs), self._ranks)


@dataclass(frozen=True, slots=True)
class _Watched:
    """A launch that may never end, if a rank dies."""

    launched: Launched
    ranks: Ranks

    def samples(self) -> list[Sample]:
        with self.ranks.watched():
            return self.launched.samples()
