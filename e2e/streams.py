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

TOKENS = 1500
TIMEOUT_SECONDS = 120.0


@dataclass
class Streams:
    """A context manager: a thread reads one stream after the other, each on a connection of its own, until the server
    takes none any more or the context ends."""

    url: str
    model: str
    ended: list[float] = field(default_factory=list)
    """When each stream ended whole (time.monotonic)."""
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._stream():
                    return
                self.ended.append(time.monotonic())
            except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error} (cause: {error.__cause__!r})")

    def _stream(self) -> bool:
        """Whether the server took the request; its answer then came to its end. Raises OpenAIError, HTTPError,
        ValueError."""
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS) as client:
            question: Object = {
                "model": self.model,
                "messages": [{"role": "user", "content": "Hello?"}],
                "max_tokens": TOKENS,
                "extra_body": {"ignore_eos": True},
            }
            answering = client.chat.completions.with_streaming_response.create(**question, stream=True)
            try:
                with answering as response:
                    # Not parsed, so that who shares an interpreter with others keeps up with the engine: of a request
                    # whose tokens wait in sockets it has nothing left to run.
                    whole = b"".join(response.iter_bytes())
            except (openai.APIConnectionError, openai.InternalServerError):
                return False  # on its way out it refuses in order, and then its port is closed
        chunks = [json.loads(line[6:]) for line in whole.splitlines() if line.startswith(b"data: {")]
        reason = next((chunk["choices"][0]["finish_reason"] for chunk in reversed(chunks) if chunk["choices"]), None)
        if reason != "length":
            raise ValueError(f"the stream ended with finish_reason {reason!r}; it must be 'length'")
        return True
