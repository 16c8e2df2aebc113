"""Progress of a download: bytes in, `Progress` documents out, with a rate and an estimate of the time left."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from pagoda_engine.contract import Progress, Stage

OnProgress = Callable[[Progress], None]

_WINDOW_SECONDS = 10.0  # the rate is that of the last seconds: an estimate must follow a network that slows down
_REPORT_SECONDS = 0.2


def ignore(_: Progress) -> None:
    """An OnProgress for callers that want none."""


def size_text(count: float) -> str:
    """Bytes for people, in decimal units as disks and registries count them: `92.9 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 99.95 else f"{count:.1f} {unit}"


class Meter:
    """Counts the bytes of one pull, from several threads if need be, and reports at most five times a second."""

    def __init__(self, total: int | None, on_progress: OnProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._on_progress = on_progress
        self._clock = clock
        self._lock = threading.Lock()
        self._done = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._reported = float("-inf")

    def add(self, count: int) -> None:
        """Count bytes that arrived; a negative count takes back those that have to come again."""
        with self._lock:
            self._done += count
            now = self._clock()
            if count < 0:
                self._samples.clear()
            self._samples.append((now, self._done))
            while now - self._samples[0][0] > _WINDOW_SECONDS and len(self._samples) > 2:
                self._samples.popleft()
            if now - self._reported >= _REPORT_SECONDS or self._done == self._total:
                self._reported = now
                self._on_progress(self._progress())

    def have(self, count: int) -> None:
        """Count bytes that an earlier attempt left behind: they are done, but say nothing about the rate."""
        with self._lock:
            self._done += count
            self._samples.clear()
            self._samples.append((self._clock(), self._done))
            self._on_progress(self._progress())

    def say(self, message: str) -> None:
        """Report what is done besides counting bytes, e.g. waiting for a lock or checking a hash."""
        with self._lock:
            self._on_progress(Progress(Stage.PULLING, self._percent(), self._done, self._total, message=message))

    def _percent(self) -> float | None:
        return min(100.0, 100.0 * self._done / self._total) if self._total else None

    def _rate(self) -> float | None:
        if len(self._samples) < 2:
            return None
        (t0, b0), (t1, b1) = self._samples[0], self._samples[-1]
        return (b1 - b0) / (t1 - t0) if t1 > t0 and b1 > b0 else None

    def _progress(self) -> Progress:
        rate = self._rate()
        eta = (self._total - self._done) / rate if rate and self._total else None
        text = size_text(self._done) + (f" of {size_text(self._total)}" if self._total else "")
        if rate:
            text += f", {size_text(rate)}/s"
        return Progress(Stage.PULLING, self._percent(), self._done, self._total, eta, text)
