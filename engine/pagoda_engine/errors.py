"""What can go wrong, as a tree: each leaf is one way for a command to end, with its exit code.

    PagodaError            CRASHED             not raised itself
    ├── ModelNotFound      MODEL_NOT_FOUND     no such folder, repository, package or file; or it was never pulled
    ├── ModelCorrupt       MODEL_CORRUPT       bytes that are not what their name, size or hash promises
    ├── ModelUnsupported   MODEL_UNSUPPORTED   a sound model that this engine can't run
    ├── PortInUse          PORT_IN_USE         another process listens there
    ├── OutOfMemory        OUT_OF_MEMORY       weights or KV cache don't fit the device
    ├── EngineDied         ENGINE_DIED         the engine process ended while it was needed
    ├── FetchFailed        FETCH_FAILED        the network or the far side failed, after retries
    ├── NoSpace            NO_SPACE            the cache's file system is too small
    ├── AccessDenied       ACCESS_DENIED       a token is missing, wrong, or lacks the right
    └── DeviceNotFound     DEVICE_NOT_FOUND    the device that was asked for is not there

The message is for the user: one line that names what was wrong, the value, and what to do. The exit code is for the
operator, which turns it into `status.lastFailure.reason`. An exception outside this tree is a defect of ours: it keeps
its traceback and ends the process with Python's own 1, `ExitCode.CRASHED`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ClassVar

from pagoda_engine.contract import ExitCode


class PagodaError(Exception):
    """An error that a user can act on. `str(error)` is the whole message, without the command's name."""

    exit_code: ClassVar[ExitCode] = ExitCode.CRASHED


class ModelNotFound(PagodaError):
    """There is no such model, or it is not in the download directory."""

    exit_code = ExitCode.MODEL_NOT_FOUND


class ModelCorrupt(PagodaError):
    """A model's bytes are not what they should be."""

    exit_code = ExitCode.MODEL_CORRUPT


class ModelUnsupported(PagodaError):
    """The model is sound, but of a kind that the engine can't run."""

    exit_code = ExitCode.MODEL_UNSUPPORTED


class PortInUse(PagodaError):
    """The address to listen on is taken."""

    exit_code = ExitCode.PORT_IN_USE


class OutOfMemory(PagodaError):
    """The weights, or one sequence's KV cache, don't fit in the device's memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class EngineDied(PagodaError):
    """The engine process ended although requests could still come."""

    exit_code = ExitCode.ENGINE_DIED


class FetchFailed(PagodaError):
    """A download did not succeed, however often it was tried."""

    exit_code = ExitCode.FETCH_FAILED


class NoSpace(PagodaError):
    """The download directory's file system can't hold the model."""

    exit_code = ExitCode.NO_SPACE


class AccessDenied(PagodaError):
    """The far side wants a token, or a better one."""

    exit_code = ExitCode.ACCESS_DENIED


class DeviceNotFound(PagodaError):
    """The device that was asked for is not there, or its driver does not answer."""

    exit_code = ExitCode.DEVICE_NOT_FOUND


def error_of(exit_code: int, message: str) -> PagodaError:
    """The error that another process ended with, by its exit code; EngineDied for a code of none of ours."""
    kinds = {kind.exit_code: kind for kind in PagodaError.__subclasses__()}
    return kinds.get(ExitCode(exit_code) if exit_code in list(ExitCode) else ExitCode.ENGINE_DIED, EngineDied)(message)


def run(prog: str, body: Callable[[], int | None]) -> int:
    """Run a command's body and return its exit code.

    A PagodaError becomes one line on stderr, `pagoda pull: error: ...`, and its exit code. Whatever else is raised
    passes through, argparse's SystemExit among it. A body that returns None ended well.
    """
    try:
        return body() or ExitCode.OK
    except PagodaError as error:
        # One line: the platform keeps the log's tail as the pod's last words, and a user sees it in a table's cell.
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return error.exit_code
