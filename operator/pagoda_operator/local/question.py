"""One question to a served model, over HTTP as any client would put it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import aiohttp

MAX_TOKENS = 64
"""Enough for a sentence or two."""


class NoAnswer(Exception):
    """The server answered with an error, or broke off; the message says what it said."""


async def answer(url: str, model: str, question: str) -> AsyncGenerator[str, None]:
    """The pieces of the answer as they come. `url` ends in /v1. Greedy, so the same each time. Raises NoAnswer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=120)) as session,
            session.post(f"{url}/chat/completions", json=body) as response,
        ):
            if response.status != 200:
                raise NoAnswer(f"HTTP {response.status}: {await response.text()}")
            async for line in response.content:
                data = line.decode().strip().removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                if data:
                    yield _piece(json.loads(data))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NoAnswer(f"the connection broke off: {error or type(error).__name__}") from error
    raise NoAnswer("the stream ended without [DONE]")


def curl(url: str, model: str) -> str:
    """The command line that a user can try."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    return f"curl {url}/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def _piece(event: dict[str, object]) -> str:
    if "error" in event:
        raise NoAnswer(json.dumps(event["error"]))
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices:
        return ""
    return choices[0].get("delta", {}).get("content") or ""
