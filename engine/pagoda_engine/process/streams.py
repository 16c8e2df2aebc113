"""What has come for one HTTP request and was not read yet.

A reader that is slow costs its own memory only, and no more of it than its outputs have tokens: what arrives before the
last was read is merged into it, so nobody ever waits for a queue to drain.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.ipc.messages import Output


@dataclass(slots=True)
class Update:
    """What is new of one choice."""

    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_token_id: int | None = None
    error: str | None = None
    logprobs: list[Logprobs] = field(default_factory=list)
    prompt_logprobs: list[Logprobs] = field(default_factory=list)


class Mailbox:
    """Updates by choice index, merged until they are taken. One writer, one reader, one event loop."""

    def __init__(self) -> None:
        self._updates: dict[int, Update] = {}
        self._arrived = asyncio.Event()

    def put(self, index: int, output: Output) -> None:
        update = self._updates.setdefault(index, Update())
        update.token_ids += output.token_ids
        update.finish_reason = output.finish_reason
        update.stop_token_id = output.stop_token_id
        update.error = output.error
        update.logprobs += output.logprobs
        update.prompt_logprobs += output.prompt_logprobs
        self._arrived.set()

    async def take(self) -> dict[int, Update]:
        """Everything that is new; waits until there is something."""
        await self._arrived.wait()
        self._arrived.clear()
        updates, self._updates = self._updates, {}
        return updates
