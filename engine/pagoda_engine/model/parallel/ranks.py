"""Ranks 1..n as rank 0 sees them: started, told what to compute, watched, and ended.

Each has a thread here that starts it, reads what it says and waits for its end. The thread that starts a process must
live as long: on Linux a child asks to die with its parent, and the kernel takes the parent to be that thread.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pagoda_engine.contract import EngineArgs, ExitCode
from pagoda_engine.errors import EngineDied, PagodaError, error_of
from pagoda_engine.lifetime import how_it_ended
from pagoda_engine.model.parallel.wire import Closed, Kind, PeerLost, Wire, failure_from_bytes, percent_from_bytes

_MODULE: Final = "pagoda_engine.model.parallel.rank"
_REPORT_SECONDS: Final = 0.2
_TELL_SECONDS: Final = 2.0
"""How long a rank whose connection broke may take to be known dead, so that its end can be told."""
_STOP_SECONDS: Final = 2.0

OnDeath = Callable[[PagodaError], None]


class Ranks:
    """The other ranks of one model. Rank 0's side is used by one thread, but for `close`."""

    def __init__(self, args: EngineArgs, on_death: OnDeath | None = None) -> None:
        """Start `args.tensor_parallel_size - 1` processes; returns before they have imported anything.

        `on_death` hears of the first that ends while it is needed, in a thread of that rank's own.
        """
        self.size: Final = args.tensor_parallel_size
        self.folder: Final = Path(tempfile.mkdtemp(prefix="pagoda-ranks-"))  # mode 0700
        self.abort: Callable[[], None] = lambda: None
        """Wakes rank 0 from a collective that a dead rank will never join."""
        self._on_death = on_death
        self._changed = threading.Condition()
        self._closing = False
        self._ranks = [_Rank(self, rank, args) for rank in range(1, self.size)]
        # Also at the interpreter's end, where nobody calls `close`.
        self._finalizer = weakref.finalize(self, _end, self._ranks, self.folder)
        for rank in self._ranks:
            rank.start()

    def slowest(self, percent: float) -> float:
        """How far loading is: rank 0's percent, or that of a rank which is behind."""
        return min(percent, *(rank.percent for rank in self._ranks))

    def meet(self, on_percent: Callable[[float], None]) -> None:
        """Wait until every rank has loaded, then let all go on. Raises what a rank failed with."""
        with self._changed:
            while not all(rank.loaded for rank in self._ranks):
                self._raise_first_death()
                self._changed.wait(_REPORT_SECONDS)
                on_percent(self.slowest(100.0))
        self._send(Kind.JOIN)

    def step(self, payload: bytes) -> None:
        """Have every rank compute a step. Raises EngineDied where one is gone."""
        self._send(Kind.STEP, payload)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what goes wrong inside because a rank died into the news of that rank's death."""
        try:
            yield
        except Exception as error:
            if isinstance(error, PeerLost) or not isinstance(error, PagodaError):
                self._tell(error)
            raise

    def close(self) -> None:
        """End all ranks and remove what they met in."""
        with self._changed:
            self._closing = True
        self._finalizer()

    def _send(self, kind: Kind, payload: bytes = b"") -> None:
        try:
            for rank in self._ranks:
                rank.wire.send(kind, payload)
        except Closed as error:
            self._tell(error)
            raise EngineDied(f"a rank of {self.size} does not listen any more: {error}") from error

    def _tell(self, cause: Exception) -> None:
        """Raise the death that explains `cause`, if there is one."""
        deadline = time.monotonic() + _TELL_SECONDS
        with self._changed:
            while not any(rank.death for rank in self._ranks) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        if any(rank.death for rank in self._ranks):
            time.sleep(_REPORT_SECONDS)  # one that failed takes the others with it: the cause may be the second to come
            self._raise_first_death(cause)

    def _raise_first_death(self, cause: Exception | None = None) -> None:
        if death := self.first_death():
            raise death from cause

    def first_death(self) -> PagodaError | None:
        """The death that explains the others: a signal, else what a rank said of itself, else any."""
        deaths = [rank.death for rank in self._ranks if rank.death]
        return min(deaths, key=lambda death: death.order).error if deaths else None

    def heard(self) -> None:
        """For a rank's thread: something was said."""
        with self._changed:
            self._changed.notify_all()

    def died(self) -> None:
        """For a rank's thread: its rank has ended."""
        self.heard()
        with self._changed:
            needed = not self._closing
        if not needed:
            return
        self.abort()
        if self._on_death and (death := self.first_death()):
            self._on_death(death)


@dataclass(frozen=True, slots=True)
class _Death:
    """`order` is lower for an end that rather explains others."""

    order: int
    error: PagodaError


class _Rank(threading.Thread):
    """One rank's process and what is known of it."""

    def __init__(self, ranks: Ranks, rank: int, args: EngineArgs) -> None:
        super().__init__(name=f"rank-{rank}", daemon=True)
        ours, theirs = socket.socketpair()
        self.wire = Wire(ours)
        self.percent = 0.0
        self.loaded = False
        self.death: _Death | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._ranks = weakref.proxy(ranks)  # or its finalizer would never run
        self._name = f"rank {rank} of {args.tensor_parallel_size}"
        self._their_end = theirs
        self._argv = [
            *(sys.executable, "-P", "-m", _MODULE),
            *(str(theirs.fileno()), str(os.getpid()), str(rank), str(ranks.folder)),
            *args.to_argv(),
        ]

    def run(self) -> None:
        failed: tuple[int, str] | None = None
        try:
            with self._their_end:
                self.process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[self._their_end.fileno()],
                )
            while True:
                kind, payload = self.wire.receive()
                if kind is Kind.PROGRESS:
                    self.percent = percent_from_bytes(payload)
                elif kind is Kind.LOADED:
                    self.percent, self.loaded = 100.0, True
                    self._ranks.heard()
                elif kind is Kind.FAILED:
                    failed = failure_from_bytes(payload)
        except Closed:
            pass
        except OSError as error:
            failed = (ExitCode.CRASHED, f"can't be started: {error}")
        self.death = self._how(failed)
        with suppress(ReferenceError):  # nobody is left to hear it
            self._ranks.died()

    def _how(self, failed: tuple[int, str] | None) -> _Death:
        returncode = self.process.wait() if self.process else 0
        if returncode < 0:
            pid = self.process.pid if self.process else 0
            return _Death(0, EngineDied(f"{self._name} (process {pid}) {how_it_ended(returncode)}"))
        if failed is None:
            return _Death(2, EngineDied(f"{self._name} {how_it_ended(returncode)}; its log says why"))
        exit_code, message = failed
        if self.loaded:
            return _Death(1, EngineDied(f"{self._name} failed: {message}"))
        return _Death(1, error_of(exit_code, f"{self._name}: {message}"))


def _end(ranks: Sequence[_Rank], folder: Path) -> None:
    """Close every connection, at which a rank ends by itself; kill those that do not."""
    for rank in ranks:
        rank.wire.close()
    deadline = time.monotonic() + _STOP_SECONDS
    for rank in ranks:
        if rank.process is None:
            continue
        try:
            rank.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.process.kill()
            rank.process.wait()
    shutil.rmtree(folder, ignore_errors=True)
