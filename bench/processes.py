"""What a process and its children use: memory by proportional set size, and processor time."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import psutil

_PERIOD_SECONDS: Final = 0.25


def family(pid: int) -> list[psutil.Process]:
    """The process and all that it has started, itself first."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def proportional_bytes(pid: int) -> int:
    """Main memory of a whole family: what several processes share is counted once (Linux' PSS)."""
    total = 0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            total += process.memory_full_info().pss
    return total


def cpu_seconds(pid: int) -> list[float]:
    """User and system time so far of each process of a family."""
    return [sum(process.cpu_times()[:2]) for process in family(pid)]


class MemoryPeak:
    """The most that a family used while this context was open. Looking takes time, so never while times are taken."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_PERIOD_SECONDS):
            self.bytes = max(self.bytes, proportional_bytes(self._pid))
