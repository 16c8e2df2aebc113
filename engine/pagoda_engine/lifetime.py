"""Ties a child process's life to its parent's: it outlives neither its parent nor a signal meant for the parent.

Both kinds of children stand on it: the engine process, and the ranks of a model that is spread over several devices.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` ends, however it ends.

    Linux only; elsewhere the closed socket is what ends the child. Raises ProcessLookupError where the parent is gone
    already: the kernel tells of deaths to come only.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    if os.getppid() != parent:
        raise ProcessLookupError(f"the parent process {parent} is gone")


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole process group: the parent drains, then closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def how_it_ended(returncode: int) -> str:
    """A child's end in words, from `Popen.returncode`: below 0 it is the signal that killed it."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    hint = " (out of memory? see the memory limit)" if -returncode == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-returncode).name}{hint}"
