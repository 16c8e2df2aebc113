"""Long streams from one pod, one after the other, until it refuses: none that it has begun may break."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import httpx
import openai
from e2e.api import Object

from pagoda_engine.contract import ENGINE_PORT

TOKENS = 1500
STAGGER = 350
"""Tokens by which each client's streams are shorter than the one's before: begun together, they don't end together."""
TIMEOUT_SECONDS = 120.0


@dataclass
class Streams:
    """A context manager: each of `clients` threads reads one stream after the other, each on a connection of its own,
    until the pod takes none any more or the context ends."""

    pod: Object
    model: str
    clients: int
    ended: list[float] = field(default_factory=list)
    """When each stream ended whole (time.monotonic)."""
    failures: list[str] = field(default_factory=list)
    _open: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def all_flow(self) -> bool:
        """Whether every client is in the midst of a stream."""
        return len(self._open) == self.clients

    def _read(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                if not self._stream(number):
                    return
                self.ended.append(time.monotonic())
            except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error} (cause: {error.__cause__!r})")
            finally:
                self._open.discard(number)

    def _stream(self, number: int) -> bool:
        """Whether the pod took the request; its answer then came to its end. Raises OpenAIError, HTTPError,
        ValueError."""
        url = f"http://{self.pod['status']['podIP']}:{ENGINE_PORT}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS) as client:
            answering = client.chat.completions.with_streaming_response.create(
                model=self.model,
                messages=[{"role": "user", "content": "Hello?"}],
                max_tokens=TOKENS - STAGGER * number,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            whole = b""
            try:
                with answering as response:
                    # Not parsed, so that clients who share an interpreter keep up with the engine: of a request whose
                    # tokens wait in sockets it has nothing left to run.
                    for part in response.iter_bytes():
                        self._open.add(number)
                        whole += part
            except (openai.APIConnectionError, openai.InternalServerError):
                return False  # on its way out it refuses in order, and then its port is closed
        chunks = [json.loads(line[6:]) for line in whole.splitlines() if line.startswith(b"data: {")]
        reason = next((chunk["choices"][0]["finish_reason"] for chunk in reversed(chunks) if chunk["choices"]), None)
        if reason != "length":
            raise ValueError(f"the stream ended with finish_reason {reason!r}; it must be 'length'")
        return True
