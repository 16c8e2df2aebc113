"""A long-running program of the harness: started with its log in a file, ended with its whole session."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pagoda_operator.local import launcher

STOP_SECONDS = 10.0
TAIL_LINES = 30


class Daemon:
    """Starts at once. The kernel kills it when we die, however that happens (see the operator's `launcher`)."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path) -> None:
        self.name = name
        self.log = log
        self._argv = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *map(str, command)]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises RuntimeError with the end of the log where it has ended."""
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.tail()}")

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Raises RuntimeError with the end of the log where it ends, or is not ready in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready after {seconds:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def restart(self) -> None:
        """SIGKILL, and start again."""
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP while the context is open: it holds its connections, and answers nobody."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, SIGKILL if need be; returns when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def free_ports(address: str, count: int) -> list[int]:
    """Ports that nobody listens on; all are held until all are found, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((address, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
