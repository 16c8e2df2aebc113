"""The engine core: schedule, run, commit. One call of `step` is one pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from pagoda_engine.core.request import FinishReason, Request
from pagoda_engine.core.scheduler import Scheduler, Work


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """What one step made of one request.

    `token_ids` are the new tokens, without the token that stopped it (that is `stop_token_id`). The last output of a
    request has a `finish_reason`; an `error` says what to do about it. `queue_seconds`, from arrival to the first
    time on the device, comes with the request's first output.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    error: str | None = None
    stop_token_id: int | None = None
    queue_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's state between two steps. `kv_usage` is 0 to 1; `preemptions` counts from the start."""

    running: int
    waiting: int
    kv_usage: float
    num_blocks: int
    block_size: int
    preemptions: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the HTTP process must know of the engine to refuse what can't be served.

    `max_model_len` bounds prompt and output together, in tokens; `num_blocks * block_size` tokens fit in the KV
    cache. `eos_token_ids` are the model's, from its config and generation config.
    """

    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    num_blocks: int
    block_size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A request's next token, or why there is none (its logits were not finite, say)."""

    token_id: int = -1
    error: str | None = None


class Runner(Protocol):
    """Computes a step's work. The one implementation is `pagoda_engine.model.runner`; tests have a model-free one."""

    def run(self, batch: Sequence[Work]) -> list[Sample]:
        """Compute all works and return a sample for each that `samples`, in the batch's order."""


class EngineCore:
    """Requests in, outputs out, one step at a time. Not thread-safe: one thread adds, aborts and steps."""

    def __init__(self, scheduler: Scheduler, runner: Runner, info: EngineInfo, seed: int = 0) -> None:
        self.info = info
        self._scheduler = scheduler
        self._runner = runner
        self._seed = seed
        self._seeds_given = 0
        self._requests: dict[str, Request] = {}
        self._refused: list[RequestOutput] = []

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._requests or self._refused)

    def add(self, request: Request) -> None:
        """Take a request. One that can never be served is answered with an error by the next step.

        Raises ValueError if a request of that id is still here.
        """
        if request.id in self._requests:
            raise ValueError(f"a request with id {request.id!r} is running already")
        if request.params.seed is None:
            self._seeds_given += 1
            digest = blake2b(f"{self._seed}/{self._seeds_given}".encode(), digest_size=8).digest()
            request.seed = int.from_bytes(digest, "little", signed=True)
        else:
            request.seed = request.params.seed
        try:
            self._scheduler.add(request)
        except ValueError as error:
            self._refused.append(RequestOutput(request.id, [], FinishReason.ERROR, str(error)))
            return
        self._requests[request.id] = request

    def abort(self, request_id: str) -> None:
        """End a request; nothing more is said of it. Does nothing if it has ended already."""
        if request := self._requests.pop(request_id, None):
            self._scheduler.remove(request)

    def step(self) -> list[RequestOutput]:
        """Compute one batch. Returns an output for each request that gained a token or ended."""
        outputs, self._refused = self._refused, []
        batch = self._scheduler.schedule()
        if not batch:
            return outputs
        samples = iter(self._runner.run(batch))
        for work in batch:
            self._scheduler.commit(work)
            if work.samples:
                output = self._advance(work.request, next(samples))
                outputs.append(output)
                if output.error:
                    self._scheduler.blocks.unfile(work.request.blocks)
                if output.finish_reason:
                    del self._requests[work.request.id]
                    self._scheduler.remove(work.request)
        return outputs

    def stats(self) -> EngineStats:
        blocks = self._scheduler.blocks
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            kv_usage=blocks.usage,
            num_blocks=blocks.num_blocks,
            block_size=blocks.block_size,
            preemptions=self._scheduler.preemptions,
        )

    def check_integrity(self) -> None:
        """Raise RuntimeError if a request or a block has been lost. Meant for idle moments."""
        self._scheduler.check_integrity()
        if {request.id for request in self._scheduler.requests()} != set(self._requests):
            raise RuntimeError("the scheduler's requests are not the engine's")

    def _advance(self, request: Request, sample: Sample) -> RequestOutput:
        """Give a request its next token and decide whether it was the last."""
        queued = None
        if request.num_generated == 0 and request.started_time is not None:
            queued = request.started_time - request.arrival_time
        if sample.error:
            return RequestOutput(request.id, [], FinishReason.ERROR, sample.error, queue_seconds=queued)
        token = sample.token_id
        request.tokens.append(token)
        if token in request.stop_ids and request.num_generated > request.params.min_tokens:
            return RequestOutput(request.id, [], FinishReason.STOP, stop_token_id=token, queue_seconds=queued)
        full = len(request.tokens) >= self.info.max_model_len
        length = FinishReason.LENGTH if full or request.num_generated >= request.params.max_tokens else None
        return RequestOutput(request.id, [token], length, queue_seconds=queued)
