"""One run of a container's command: a process group of this machine with its log in a file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pagoda_operator.local import launcher

MESSAGE_LINES, MESSAGE_BYTES = 80, 2048
"""The most of a log that becomes a termination message (kubelet: MaxContainerTerminationMessageLogLength, -Lines)."""
MESSAGE_CHUNK = 8192


class ContainerProcess:
    """A started command. It leads a session of its own, so that its whole group can be signalled.

    The group ends with its first process, as a container does with its PID 1, and it dies with us (see `launcher`).
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._emptied = False
        self.log = log

    @classmethod
    async def start(
        cls, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> ContainerProcess:
        """Run `command` in `folder`, stdout and stderr appended to `log`. What can't be run ends with 126 or 127."""
        launch = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command]
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launch,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit code once it ended; 128 + n where signal n ended it, as container runtimes report it."""
        code = await self._process.wait()
        self._signal_group(signal.SIGKILL)
        self._emptied = True
        return 128 - code if code < 0 else code

    async def terminate(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace period; returns when it has ended. Two calls: the shorter grace wins.

        Only the first process gets the SIGTERM, as in a container; the SIGKILL goes to the whole group.
        """
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL to the whole group; returns when its first process has ended."""
        self._signal_group(signal.SIGKILL)
        await self.wait()

    def last_words(self) -> str:
        """The tail of the log, at most 80 lines and 2,048 bytes: what `FallbackToLogsOnError` makes the message."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - MESSAGE_CHUNK))
            lines = file.read().decode(errors="replace").splitlines()[-MESSAGE_LINES:]
        return "\n".join(lines).encode()[-MESSAGE_BYTES:].decode(errors="ignore")

    def _signal_group(self, number: signal.Signals) -> None:
        if self._emptied:
            return  # the number of the group may be another's by now
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # nobody is left in the group
        except PermissionError:
            return  # macOS says this of a group of zombies
