"""How much memory a run takes: the sum over its processes, looked at now and then, and its highest value."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil

INTERVAL_SECONDS = 5.0


class MemoryMeter:
    """Counts this process and all its descendants, in bytes of unique memory and its share of what is shared (PSS)."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self.peak = max(self.peak, _bytes_now())


def still_running() -> list[str]:
    """Pid and command line of each process that descends from this one and has not ended."""
    lines = []
    for process in _descendants():
        with suppress(psutil.NoSuchProcess):  # a zombie is one too: it has ended
            lines.append(f"{process.pid}: {' '.join(process.cmdline())[:120]}")
    return lines


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _bytes_now() -> int:
    total = 0
    for process in [psutil.Process(), *_descendants()]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total
