"""A step on all ranks, from rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pagoda_engine.core.engine import Computed, Runner
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.inputs import StepInputs
from pagoda_engine.model.parallel.ranks import Ranks


class ParallelRunner:
    """`core.engine.Runner` over rank 0's own runner and the other ranks.

    It does not overlap: a token in flight is on rank 0's device only.
    """

    overlaps: Final = False

    def __init__(self, runner: Runner, ranks: Ranks) -> None:
        self._runner = runner
        self._ranks = ranks

    def launch(self, batch: Sequence[Work]) -> Computed:
        """Raises EngineDied naming the rank, where one is gone."""
        with self._ranks.watched():
            # The others first, so that all compute at the same time.
            self._ranks.step(StepInputs.of(batch).to_bytes())
            return Computed(self._runner.launch(batch).samples())
