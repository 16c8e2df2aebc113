"""SIGTERM and SIGINT as two wishes: to end, and to end at once."""

from __future__ import annotations

import asyncio
import signal


class Signals:
    """Listens from the moment it is made, on the running event loop.

    Made before anything slow: a signal that comes while the loop is held up by imports is heard right after them.
    """

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.end_now = asyncio.Event()
        """Whoever presses Ctrl-C twice does not want to wait."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._heard, number)

    def _heard(self, number: signal.Signals) -> None:
        if self.end.is_set() and number == signal.SIGINT:
            self.end_now.set()
        self.end.set()
