"""Engine cores in this process, over one runner: what a scheduler and its cache cost, without processes or HTTP.

All cores share weights, buffers and the KV cache's memory, so they differ in nothing but their own book-keeping. They
must take turns: each believes that the cache is its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pagoda_engine.benchmark.summary import Answer
from pagoda_engine.contract import EngineArgs
from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Scheduler
from pagoda_engine.model.build import Built, build_runner
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.sampling_params import SamplingParams


def built(model: Path, flags: Sequence[str]) -> tuple[Built, float]:
    """A warm runner by the flags of `pagoda serve`, and the seconds until it was there."""
    started = time.perf_counter()
    made = build_runner(EngineArgs.from_argv([str(model), *flags]), lambda _: None, Group.alone())
    return made, time.perf_counter() - started


class Core:
    """A system without a server. Its first answers come as soon as the step is over that made them."""

    def __init__(self, name: str, made: Built, seconds_to_ready: float, *, prefix_caching: bool) -> None:
        self.name = name
        self.seconds_to_ready = seconds_to_ready
        limits = replace(made.limits, prefix_caching=prefix_caching)
        self._scheduler = Scheduler(limits, BlockPool(made.info.num_blocks, made.info.block_size))
        self._engine = EngineCore(self._scheduler, made.runner, made.info)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._scheduler.check_integrity()

    @property
    def pid(self) -> int:
        return os.getpid()

    def run(self, prompts: Sequence[list[int]], output_tokens: int) -> list[Answer]:
        """All prompts at once, as a server's clients send them."""
        params = SamplingParams(temperature=0, max_tokens=output_tokens, ignore_eos=True)
        arrivals: dict[str, list[float]] = {str(number): [] for number in range(len(prompts))}
        sent = time.perf_counter()
        for number, prompt in enumerate(prompts):
            self._engine.add(Request(str(number), prompt, params, frozenset(), time.monotonic()))
        while self._engine.has_work:
            outputs = self._engine.step()
            now = time.perf_counter()
            for output in outputs:
                if output.error:
                    raise RuntimeError(f"request {output.request_id}: {output.error}")
                arrivals[output.request_id].append(now)
        return [Answer(sent, tuple(times), len(times)) for times in arrivals.values()]
