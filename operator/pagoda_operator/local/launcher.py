"""Becomes the command of a container, after tying its life to the process that started it.

Run as a script (`python -I -S launcher.py PARENT_PID COMMAND...`), so that no code runs between fork and exec of a
process with threads, which Python warns of from 3.12 on. On Linux the kernel then ends the command when its parent
dies, however that dies (PR_SET_PDEATHSIG, prctl(2); kept across exec). Elsewhere only an orderly stop ends it.
Standard library only, and little of it: this is paid for at each start of a container.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CANNOT_EXECUTE, NOT_FOUND = 126, 127
"""Exit codes of a shell for a command that is there but can't be run, and for one that is not there."""


def main(argv: list[str]) -> int:
    parent, command = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            print(f"cannot tie {command[0]} to its parent: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
            return CANNOT_EXECUTE
    if os.getppid() != parent:
        return 128 + signal.SIGKILL  # the parent died before the tie was made
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        print(f"{command[0]}: command not found in PATH={os.environ.get('PATH', '')}", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        print(f"{command[0]}: cannot be run: {error.strerror}", file=sys.stderr)
        return CANNOT_EXECUTE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
