"""Threads that run a function together, once for each call, and sleep in the kernel in between.

They are Python's own threads around machine code without the GIL. An OpenMP team would spin after its work or take
longer to wake, as an environment variable says that is read before an engine can set it; and this team needs no
library on the machine.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from pagoda_engine.kernels.cpu.work import Shared, close_step, enter, leave, open_step, shared

Job = Callable[[int, Shared], None]


@dataclass(eq=False, slots=True)
class _Desk:
    """What the team's threads hold on to; never the team itself, so that a team can be forgotten."""

    words: Shared
    wake: threading.Semaphore
    job: Job | None = None
    closed: bool = False


class Team:
    """`size` threads, the caller among them, for jobs of at most `phases` phases.

    A job, `job(thread, words)`, is kernels only, phase after phase, and returns when the last is finished. It must not
    raise. The threads end when the team is closed or forgotten.
    """

    def __init__(self, size: int, phases: int) -> None:
        self.size = size
        self._desk = _Desk(shared(phases), threading.Semaphore(0))
        for number in range(1, size):
            threading.Thread(
                target=_serve, args=(self._desk, number), name=f"pagoda-kernels-{number}", daemon=True
            ).start()
        self.close = weakref.finalize(self, _dismiss, self._desk, size)

    @property
    def words(self) -> Shared:
        """What jobs are given."""
        return self._desk.words

    def run(self, job: Job) -> None:
        """Run the job on all threads that come in time; returns when it is done and all have left it."""
        desk = self._desk
        desk.job = job
        open_step(desk.words)
        try:
            if self.size > 1:
                desk.wake.release(self.size - 1)
            job(0, desk.words)
        finally:
            close_step(desk.words)


def _serve(desk: _Desk, number: int) -> None:
    while True:
        desk.wake.acquire()
        if desk.closed:
            return
        # One that comes too late stays outside; the next step wakes it again.
        if enter(desk.words):
            if desk.job:
                desk.job(number, desk.words)
            leave(desk.words)


def _dismiss(desk: _Desk, size: int) -> None:
    desk.closed = True
    desk.wake.release(size)
