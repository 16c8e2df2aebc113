"""Time of work on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

_FLUSH_BYTES = 256 << 20  # several times the largest L2 cache


def seconds(run: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """The median time of `run`, after it was run three times, with cold caches on a GPU."""
    for _ in range(3):
        run()
    if device.type != "cuda":
        return statistics.median(_on_cpu(run) for _ in range(3))
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
    times = []
    for _ in range(rounds):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()  # also keeps the GPU busy while the host launches what is timed
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times)


def _on_cpu(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
