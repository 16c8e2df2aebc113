"""Starts the engine process, holds its end of the wire, and says how it ended.

The socket lies in a temporary folder that only this user can enter and is itself mode 0600; the peer that connects must
be the child that was started. The child's stderr passes through this process, so that its last words are known when
it dies without a message of its own (a signal, the out-of-memory killer, an abort in a library).
"""

from __future__ import annotations

import asyncio
import collections
import os
import shutil
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pagoda_engine.contract import EngineArgs, ExitCode
from pagoda_engine.ipc.channel import AsyncChannel
from pagoda_engine.ipc.messages import Failed
from pagoda_engine.lifetime import how_it_ended

WORKER_MODULE: Final = "pagoda_engine.process.worker"
STOP_SECONDS: Final = 5.0
"""How long a child that has said its last words may take to end."""

_LAST_LINES: Final = 20

# OpenMP reads it once, when torch is loaded. Threads that spin at the end of each parallel loop starve those they wait
# for as soon as two engines share their cores.
_ENVIRONMENT: Final = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True, slots=True)
class Death:
    """How the engine process ended, for the user (`message`, one line) and for the operator (`exit_code`)."""

    exit_code: ExitCode
    message: str


class EngineProcess:
    """A running engine process. Made by `start`; `stop` must be awaited, whatever happened in between."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self._stderr = asyncio.create_task(self._pass_on_stderr())
        self._connection: asyncio.Future[AsyncChannel] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(cls, args: EngineArgs) -> EngineProcess:
        """Spawn the child. Raises OSError where the system can't."""
        folder = Path(tempfile.mkdtemp(prefix="pagoda-"))
        try:
            listener = _listen(folder / "engine.sock")
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a module of the working directory must not shadow one of ours
                "-m",
                WORKER_MODULE,
                str(folder / "engine.sock"),
                str(os.getpid()),
                *args.to_argv(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_ENVIRONMENT | os.environ,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        engine = cls(process, folder)
        engine._server = await asyncio.start_unix_server(engine._accept, sock=listener)
        return engine

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connected(self) -> AsyncChannel | None:
        """The wire, once the child has connected; None where it ended before it did."""
        ended = asyncio.ensure_future(self._process.wait())
        either: set[asyncio.Future[Any]] = {ended, self._connection}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        return self._connection.result() if self._connection.done() else None

    async def death(self, failed: Failed | None, *, ready: bool) -> Death:
        """Wait for the child's end and say what it was.

        A child that could not start ends this process with the child's own exit code; one that dies later, with
        ENGINE_DIED, whatever it died of.
        """
        await self._end(STOP_SECONDS)
        code = ExitCode.ENGINE_DIED
        if failed is not None:
            if not ready:
                code = ExitCode(failed.exit_code)
            message = failed.message if not ready else f"the engine process failed: {failed.message}"
            return Death(code, message)
        ended = how_it_ended(await self._process.wait())
        return Death(code, f"the engine process {ended}; its last words: {self._last_words()}")

    async def stop(self) -> None:
        """End the child, wherever it is: it holds nothing that outlives it. Removes the socket and its folder."""
        self._kill()
        await self._end(STOP_SECONDS)
        if self._connection.done():
            self._connection.result().close()
        if self._server is not None:
            self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def _end(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            self._kill()
            await self._process.wait()
        await self._stderr

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer_pid(writer.get_extra_info("socket"))
        if self._connection.done() or peer not in (None, self._process.pid):
            writer.close()
            return
        self._connection.set_result(AsyncChannel(reader, writer))

    async def _pass_on_stderr(self) -> None:
        stream = self._process.stderr
        if stream is None:
            raise RuntimeError("the engine process was started without a pipe for its stderr")
        unfinished = ""
        while received := await stream.read(1 << 16):
            text = received.decode(errors="replace")
            sys.stderr.write(text)
            sys.stderr.flush()
            *lines, unfinished = (unfinished + text).replace("\r", "\n").split("\n")
            self._last_lines += filter(str.strip, lines)
        if unfinished.strip():
            self._last_lines.append(unfinished)

    def _last_words(self) -> str:
        return self._last_lines[-1].strip()[:500] if self._last_lines else "none"


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(1)
    return listener


def _peer_pid(connection: socket.socket) -> int | None:
    """The process at the other end, or None where the system can't say."""
    if sys.platform != "linux":
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
