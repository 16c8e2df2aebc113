"""Streams completions from a server, and notes when tokens arrive.

The client runs beside the server it measures, often on the same cores, so it does no more per event than find the
count of tokens in it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import httpx

from pagoda_engine.benchmark.summary import Answer
from pagoda_engine.errors import PagodaError

_SECONDS: Final = 600.0
_DONE: Final = b"[DONE]"


class LoadFailed(PagodaError):
    """The server did not answer as the measurement needs it."""


class LoadClient:
    """Requests to one model of one server. `url` is the server's root, without `/v1`."""

    def __init__(self, url: str, model: str, api_key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def run(self, prompts: Sequence[list[int]], output_tokens: int, concurrency: int) -> list[Answer]:
        """An answer of exactly `output_tokens` for each prompt, `concurrency` requests at a time.

        Raises LoadFailed where the server refuses a request, fails, or answers with fewer tokens.
        """
        queue = iter(prompts)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(headers=self._headers, limits=limits, timeout=_SECONDS) as http:

            async def ask_on() -> list[Answer]:
                return [await self._ask(http, prompt, output_tokens) for prompt in queue]

            try:
                async with asyncio.TaskGroup() as tasks:
                    asking = [tasks.create_task(ask_on()) for _ in range(concurrency)]
            except ExceptionGroup as group:
                first = group.exceptions[0]
                if isinstance(first, httpx.HTTPError | httpx.InvalidURL | LoadFailed):
                    raise LoadFailed(f"{self._url}: {str(first) or type(first).__name__}") from first
                raise
        return [answer for task in asking for answer in task.result()]

    async def _ask(self, http: httpx.AsyncClient, prompt: list[int], output_tokens: int) -> Answer:
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        tokens = 0
        arrivals: list[float] = []
        sent = time.perf_counter()
        async with http.stream("POST", f"{self._url}/v1/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                text = (await response.aread()).decode(errors="replace")
                raise LoadFailed(f"the server answered {response.status_code}: {text[:500]}")
            async for event in _events(response):
                arrived = time.perf_counter()
                count = _tokens_after(event, tokens)
                if count > tokens:
                    tokens = count
                    arrivals.append(arrived)
        if tokens != output_tokens:
            raise LoadFailed(
                f"the server answered with {tokens} tokens and {output_tokens} were asked for; "
                "it must honour ignore_eos and have room for prompt and output"
            )
        return Answer(sent, tuple(arrivals), tokens)


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON documents of a stream of server-sent events."""
    rest = b""
    async for received in response.aiter_raw():
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if data and data != _DONE:
                yield json.loads(data)


def _tokens_after(event: dict[str, Any], before: int) -> int:
    """How many tokens the answer has after this event, by the server's own count, else one an event with a choice."""
    if error := event.get("error"):
        raise LoadFailed(f"the server failed: {error}")
    usage = event.get("usage")
    if usage:
        return int(usage["completion_tokens"])
    return before + bool(event.get("choices"))
