"""What a person sees while waiting: one live line on a terminal; in a log, a line a change and a sign of life."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TextIO

SILENCE = 5.0
"""Seconds after which a log is told that the same is still going on."""
CLEAR = "\r\x1b[K"


class ProgressLine:
    """Shows the latest of what is told. `clock` is in seconds."""

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._start = clock()
        self._live = out.isatty()
        self._shown = ""
        self._shown_at = self._start

    def show(self, text: str) -> None:
        """Tell what is going on; call it often, it decides what is worth a line."""
        now = self._clock()
        line = f"[{now - self._start:4.0f} s] {text}"
        if self._live:
            self._out.write(CLEAR + line[: shutil.get_terminal_size().columns - 1])
            self._out.flush()
        elif text != self._shown or now - self._shown_at >= SILENCE:
            print(line, file=self._out, flush=True)
            self._shown_at = now
        self._shown = text

    def finish(self) -> None:
        """Make room for what comes next."""
        if self._live:
            self._out.write(CLEAR)
            self._out.flush()
