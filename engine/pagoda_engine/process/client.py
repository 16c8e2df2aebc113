"""The HTTP process's view of the engine: submit requests, read their outputs, know how the engine is.

Everything here runs on one event loop. Commands of one iteration of the loop leave in one frame.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from pagoda_engine.contract import Progress, Stage
from pagoda_engine.ipc.channel import AsyncChannel, Closed
from pagoda_engine.ipc.messages import Commands, Failed, Loading, Message, Output, Ready, Stepped, Submit
from pagoda_engine.process.streams import Mailbox, Update
from pagoda_engine.process.supervisor import Death, EngineProcess
from pagoda_engine.sampling_params import SamplingParams


class Observer(Protocol):
    """Is told of every request's course, at the moment that the engine's message arrives. Times in seconds."""

    def first_token(self, prompt_tokens: int, since_arrival: float, queued: float | None) -> None: ...

    def later_token(self, since_last: float) -> None: ...

    def generated(self, tokens: int) -> None: ...

    def finished(self, reason: str, since_arrival: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sequence to generate from, validated. See `core.request.Request` for priority and salt."""

    token_ids: list[int]
    params: SamplingParams
    priority: int = 0
    cache_salt: str = ""


@dataclass(slots=True)
class _Open:
    """A request that the engine has and that has not ended."""

    mailbox: Mailbox
    index: int
    prompt_tokens: int
    arrived_at: float
    last_token_at: float | None = None


@dataclass(slots=True)
class _Outbox:
    submit: list[Submit] = field(default_factory=list)
    abort: list[str] = field(default_factory=list)


class Generation:
    """The choices of one HTTP request, as a context: whatever happens inside, no request is left in the engine."""

    def __init__(self, client: EngineClient, prompts: Sequence[Prompt]) -> None:
        self._client = client
        self._prompts = prompts
        self._mailbox = Mailbox()
        self._ids: list[str] = []

    def __enter__(self) -> Generation:
        self._ids = self._client._submit(self._prompts, self._mailbox)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for request_id in self._ids:
            self._client._finish(request_id, "abort")

    async def take(self) -> dict[int, Update]:
        """What is new, by choice. A choice's last update has a finish_reason."""
        return await self._mailbox.take()

    def stop(self, index: int) -> None:
        """End a choice whose text has come to a stop string."""
        self._client._finish(self._ids[index], "stop")


class EngineClient:
    """One engine process and the requests in it. `run` it in a task; the rest may be called at any time."""

    def __init__(self, observer: Observer, *, step_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = Progress(Stage.STARTING)
        self.ready: Ready | None = None
        self.death: Death | None = None
        self.latest = Stepped([], 0, 0, 0, 0, 0.0, 0, 0, 0, 0)
        self._observer = observer
        self._step_seconds = step_seconds
        self._clock = clock
        self._channel: AsyncChannel | None = None
        self._open: dict[str, _Open] = {}
        self._outbox = _Outbox()
        self._submitted = 0
        self._aborted = 0
        self._pulse = clock()

    async def run(self, process: EngineProcess, on_ready: Callable[[Ready], None]) -> Death:
        """Carry messages to and from an engine process until it ends; returns how."""
        failed = await self._converse(process, on_ready)
        self.death = await process.death(failed, ready=self.ready is not None)
        self.abandon(self.death.message)
        return self.death

    def abandon(self, message: str) -> None:
        """End every open request with an error."""
        for request_id, request in list(self._open.items()):
            self._finish(request_id, "error")
            request.mailbox.put(request.index, Output(request_id, [], "error", message, None, None))

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        """Requests that the engine has not started: those in its queue, and those still on their way to it."""
        return self.latest.waiting + self._submitted - self.latest.requests_seen

    @property
    def stuck(self) -> bool:
        """Whether the engine owes us a step for longer than a step may take."""
        return self._owes_step and self._clock() - self._pulse > self._step_seconds

    def generate(self, prompts: Sequence[Prompt]) -> Generation:
        """A context that submits the prompts when it is entered. Entering raises EngineGone without an engine."""
        return Generation(self, prompts)

    async def _converse(self, process: EngineProcess, on_ready: Callable[[Ready], None]) -> Failed | None:
        self._channel = await process.connected()
        if self._channel is None:
            return None
        try:
            while True:
                message = await self._channel.receive()
                if isinstance(message, Failed):
                    return message
                if isinstance(message, Ready):
                    self.ready = message
                    on_ready(message)
                self._read(message)
        except Closed:
            return None
        finally:
            self._channel = None

    def _read(self, message: Message) -> None:
        match message:
            case Loading(stage, percent, text):
                self.progress = Progress(Stage(stage), percent, message=text)
            case Ready():
                self.progress = Progress(Stage.READY)
            case Stepped():
                self._pulse = self._clock()
                self.latest = message
                for output in message.outputs:
                    self._deliver(output)

    def _deliver(self, output: Output) -> None:
        request = self._open.get(output.request_id)
        if request is None:
            return  # it was aborted while this step ran
        self._observe(request, output)
        request.mailbox.put(request.index, output)
        if output.finish_reason is not None:
            del self._open[output.request_id]
            self._observer.finished(output.finish_reason, self._pulse - request.arrived_at)

    def _observe(self, request: _Open, output: Output) -> None:
        tokens = len(output.token_ids) + (output.stop_token_id is not None)
        if not tokens:
            return
        if request.last_token_at is None:
            self._observer.first_token(request.prompt_tokens, self._pulse - request.arrived_at, output.queue_seconds)
        else:
            self._observer.later_token(self._pulse - request.last_token_at)
        request.last_token_at = self._pulse
        self._observer.generated(tokens)

    def _submit(self, prompts: Sequence[Prompt], mailbox: Mailbox) -> list[str]:
        if self._channel is None:
            raise EngineGone("the engine process is not running")
        now = self._clock()
        if not self._owes_step:
            self._pulse = now  # an idle engine has no pulse; its time to answer begins here
        base = uuid.uuid4().hex
        ids = [f"{base}-{index}" for index in range(len(prompts))]
        for index, (request_id, prompt) in enumerate(zip(ids, prompts, strict=True)):
            self._open[request_id] = _Open(mailbox, index, len(prompt.token_ids), now)
            params = dataclasses.asdict(dataclasses.replace(prompt.params, stop=(), bad_words=()))
            params["logit_bias"] = list(prompt.params.logit_bias.items())
            submit = Submit(request_id, prompt.token_ids, params, now, prompt.priority, prompt.cache_salt)
            self._post().submit.append(submit)
        self._submitted += len(prompts)
        return ids

    def _finish(self, request_id: str, reason: str) -> None:
        """End a request from this side; does nothing for one that has ended."""
        request = self._open.pop(request_id, None)
        if request is None:
            return
        self._observer.finished(reason, self._clock() - request.arrived_at)
        self._aborted += 1
        self._post().abort.append(request_id)

    def _post(self) -> _Outbox:
        """The commands of this iteration of the event loop; they leave at its end."""
        if not self._outbox.submit and not self._outbox.abort:
            asyncio.get_running_loop().call_soon(self._flush)
        return self._outbox

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, _Outbox()
        if self._channel is not None:
            self._channel.send(Commands(outbox.submit, outbox.abort))

    @property
    def _owes_step(self) -> bool:
        unread = self._submitted > self.latest.requests_seen or self._aborted > self.latest.aborts_seen
        return unread or bool(self._open)


class EngineGone(Exception):
    """A request came when there was no engine process to give it to."""
