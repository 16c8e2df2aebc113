"""How a step whose launches are always the same reaches the device: replayed from a CUDA graph, or one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Compute = Callable[[int], None]


class Execution(Protocol):
    """Runs `compute(size)` for one of a few sizes; all that it reads and writes stands where it stood at `prepare`."""

    overlaps: bool
    """Whether the host is free while the device computes."""

    def prepare(self, sizes: Sequence[int], compute: Compute) -> None:
        """Make these sizes ready to run. What was prepared before is forgotten."""

    def run(self, size: int) -> None: ...


class Plain:
    """Each size is computed when it is run."""

    overlaps = False

    def prepare(self, sizes: Sequence[int], compute: Compute) -> None:
        self._compute = compute
        compute(max(sizes))

    def run(self, size: int) -> None:
        self._compute(size)


class CudaGraphs:
    """A graph for each size, all in one pool of memory, which the largest, captured first, makes large enough."""

    overlaps = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def prepare(self, sizes: Sequence[int], compute: Compute) -> None:
        self._graphs = {}
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for size in sorted(sizes, reverse=True):
                compute(size)  # whatever happens only once, compiling say, must not happen in a capture
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    compute(size)
                finally:
                    graph.capture_end()
                self._graphs[size] = graph
        torch.cuda.current_stream(self._device).wait_stream(stream)
        torch.cuda.synchronize(self._device)

    def run(self, size: int) -> None:
        self._graphs[size].replay()


def graph_sizes(most: int) -> tuple[int, ...]:
    """Batch sizes to capture, up to `most`: close enough that little is computed for rows that nobody asked for."""
    sizes = [1, 2, 4, *range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, most + 1, 64)]
    return (*(size for size in sizes if size < most), most)
