"""Our own server as a system to be measured: `pagoda serve` in processes of its own, asked over HTTP."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pagoda_engine.benchmark.client import LoadClient
from pagoda_engine.benchmark.summary import Answer
from pagoda_engine.contract import READY_PATH

_NAME: Final = "model"
_READY_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.02


class PagodaServer:
    """A server and its engine process. A context: entering it waits until `/ready` answers 200."""

    def __init__(self, model: Path, *flags: str, name: str = "pagoda") -> None:
        self.name = name
        self.seconds_to_ready = 0.0
        self._command = [sys.executable, "-m", "pagoda_engine.cli", "serve", str(model), "--port", "0", *flags]
        self._command += ["--served-model-name", _NAME]

    def __enter__(self) -> Self:
        started = time.perf_counter()
        # Its log is shown where it fails, and not mixed with the tables where it does not.
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        try:
            self._url = self._address()
            self._wait_ready(started + _READY_SECONDS)
        except BaseException:
            self._end()
            raise
        self.seconds_to_ready = time.perf_counter() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, prompts: Sequence[list[int]], output_tokens: int) -> list[Answer]:
        """All prompts at once, streamed."""
        return asyncio.run(LoadClient(self._url, _NAME).run(prompts, output_tokens, len(prompts)))

    def _address(self) -> str:
        if self._process.stdout is None:
            raise RuntimeError("the server was started without a pipe")
        match = re.search(r"http://\S+", self._process.stdout.readline())
        if match is None:
            raise RuntimeError(f"the server did not start:\n{self._last_words()}")
        return match[0]

    def _wait_ready(self, deadline: float) -> None:
        while not self._ready():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(f"the server did not become ready:\n{self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._url + READY_PATH, timeout=10) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, TimeoutError):
            return False  # not yet; or it listens, and is still busy with its imports

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-3000:]

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
