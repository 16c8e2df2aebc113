"""Constant load on a service, by the real client without retries: what fails is counted, and nothing is forgiven."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Self

import openai
from e2e.api import Object

TOKENS = 8
TIMEOUT_SECONDS = 60.0


@dataclass
class Load:
    """A context manager: `clients` threads ask one request after the other, every second one as a stream by default.

    Each client keeps its connection open between requests, as SDKs do, unless the server says `Connection: close`.
    """

    url: str
    model: str
    clients: int = 3
    tokens: int = TOKENS
    """Length of each answer, of the first client's."""
    shorter: int = 0
    """Tokens less for each further client: begun together, answers of one length would end together."""
    seconds: float = TIMEOUT_SECONDS
    streams: bool = True
    done: list[float] = field(default_factory=list)
    """When each request ended well (time.monotonic)."""
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=self.seconds) as client:
            turn = number
            while not self._ended.is_set():
                turn += 1
                try:
                    tokens = self.tokens - self.shorter * number
                    self._request(client, tokens, stream=self.streams and turn % 2 == 0)
                    self.done.append(time.monotonic())
                except (openai.OpenAIError, ValueError) as error:
                    self.failures.append(f"{type(error).__name__}: {error} (cause: {error.__cause__!r})")

    def _request(self, client: openai.OpenAI, tokens: int, *, stream: bool) -> None:
        """Raises OpenAIError, or ValueError for an answer that is not whole."""
        question: Object = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Hello?"}],
            "max_tokens": tokens,
            "temperature": 0,
            "extra_body": {"ignore_eos": True},
        }
        if not stream:
            reason = client.chat.completions.create(**question).choices[0].finish_reason
        else:
            chunks = [chunk for chunk in client.chat.completions.create(**question, stream=True) if chunk.choices]
            reason = chunks[-1].choices[0].finish_reason if chunks else None
        if reason != "length":
            raise ValueError(f"the answer ended with finish_reason {reason!r}; it must be 'length'")
