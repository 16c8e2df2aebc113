"""The engine core: schedule, launch, read. One call of `step` is one pass of the model.

Where a device computes by itself, step n + 1 is scheduled and launched before the samples of step n are read, so that
the device never waits for us. Then a request's newest token is in flight: the next step counts on it and the runner
feeds it on, but nobody here knows it yet. If it turns out to have ended the request, what the next step made for that
request is thrown away when it is read; nobody outside sees a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.core.request import FinishReason, Request
from pagoda_engine.core.scheduler import Scheduler, Work


@dataclass(slots=True)
class RequestOutput:
    """What one step made of one request.

    `token_ids` are the new tokens, without the token that stopped it (that is `stop_token_id`). The last output of a
    request has a `finish_reason`; an `error` says what to do about it. `queue_seconds`, from arrival to the first
    time on the device, comes with the request's first output.

    `logprobs`, where they were asked for, holds one entry for each new token, the one that stopped it included;
    `prompt_logprobs`, which come with the first token, one for each prompt token but the first.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    error: str | None = None
    stop_token_id: int | None = None
    queue_seconds: float | None = None
    logprobs: list[Logprobs] = field(default_factory=list)
    prompt_logprobs: list[Logprobs] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's state between two steps.

    `kv_usage` is 0 to 1. Counted from the start: `preemptions`, and of the prompt tokens of started requests those that
    were looked for in the prefix cache (`prefix_queries`) and found there (`prefix_hits`). `late_compiles` are kernels
    that were compiled after the engine was ready. Each is a stall: there should be none.
    """

    running: int
    waiting: int
    kv_usage: float
    num_blocks: int
    block_size: int
    preemptions: int
    prefix_queries: int
    prefix_hits: int
    late_compiles: int = 0


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
    """What a work's logits gave: the next token, or why there is none (they were not finite, say).

    `token_id` is -1 where the work only scored a part of its prompt, which is then in `prompt_logprobs`.
    """

    token_id: int = -1
    error: str | None = None
    logprobs: Logprobs | None = None
    prompt_logprobs: tuple[Logprobs, ...] = ()


class Launched(Protocol):
    """A step that the device is computing, or has computed."""

    def samples(self) -> list[Sample]:
        """A sample for each work with `rows`, in the batch's order; waits for this launch, but for no later one."""


class Runner(Protocol):
    """Computes a step's work: `pagoda_engine.model.runner` and its faster kin; tests have a model-free one."""

    @property
    def overlaps(self) -> bool:
        """Whether `launch` returns before the work is done, so that launching once more before reading gains time."""

    def launch(self, batch: Sequence[Work]) -> Launched:
        """Begin to compute all works, after those of every launch before it.

        At most one launch is unread when this is called. A work that is `in_flight` takes the token that this unread
        launch samples for its request, on the device. Requests change afterwards (blocks, tokens, their end): what a
        launch needs of them it takes before it returns.
        """


@dataclass(frozen=True, slots=True)
class Computed:
    """What a runner that does not overlap returns: all was done when `launch` returned."""

    results: list[Sample]

    def samples(self) -> list[Sample]:
        return self.results


class EngineCore:
    """Requests in, outputs out, one step at a time. Not thread-safe: one thread adds, aborts and steps."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        info: EngineInfo,
        seed: int = 0,
        *,
        late_compiles: Callable[[], int] = lambda: 0,
    ) -> None:
        self.info = info
        self._scheduler = scheduler
        self._runner = runner
        self._seed = seed
        self._late_compiles = late_compiles
        self._seeds_given = 0
        self._requests: dict[str, Request] = {}
        self._refused: list[RequestOutput] = []
        self._unread: tuple[list[Work], Launched] | None = None

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._requests or self._refused or self._unread)

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
            self._check_ids(request)
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
        """Compute one batch, or begin to. Returns an output for each request that gained a token or ended."""
        outputs, self._refused = self._refused, []
        if self._must_read_first:
            outputs += self._read()
        batch = self._scheduler.schedule()
        launched = (batch, self._runner.launch(batch)) if batch else None
        outputs += self._read()
        self._unread = launched
        if not self._runner.overlaps:
            outputs += self._read()
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
            prefix_queries=self._scheduler.tables.queries,
            prefix_hits=self._scheduler.tables.hits,
            late_compiles=self._late_compiles(),
        )

    def check_integrity(self) -> None:
        """Raise RuntimeError if a request or a block has been lost. Meant for idle moments."""
        self._scheduler.check_integrity()
        if {request.id for request in self._scheduler.requests()} != set(self._requests):
            raise RuntimeError("the scheduler's requests are not the engine's")

    @property
    def _must_read_first(self) -> bool:
        """Whether a token is in flight that its request's next sampling wants to know on the host."""
        works = self._unread[0] if self._unread else []
        return any(work.samples and work.request.params.reads_history for work in works)

    def _read(self) -> list[RequestOutput]:
        """Wait for the unread launch and give its tokens to their requests."""
        if self._unread is None:
            return []
        (batch, launched), self._unread = self._unread, None
        outputs = []
        samples = iter(launched.samples())
        for work in batch:
            request = work.request
            sample = next(samples) if work.rows else None
            if self._requests.get(request.id) is not request:
                continue  # aborted since, or ended by the launch before
            self._scheduler.commit(work)
            if sample is None:
                continue
            request.in_flight -= work.samples
            request.prompt_logprobs += sample.prompt_logprobs
            if not work.samples and sample.error is None:
                continue
            output = self._advance(request, sample)
            outputs.append(output)
            if output.error:
                self._scheduler.blocks.unfile(request.block_hashes)
            if output.finish_reason:
                del self._requests[request.id]
                self._scheduler.remove(request)
        return outputs

    def _advance(self, request: Request, sample: Sample) -> RequestOutput:
        """Give a request its next token and decide whether it was the last."""
        output = RequestOutput(request.id, [])
        if request.num_generated == 0:
            if request.started_time is not None:
                output.queue_seconds = request.started_time - request.arrival_time
            output.prompt_logprobs = request.prompt_logprobs
        if sample.error:
            output.finish_reason, output.error = FinishReason.ERROR, sample.error
            return output
        token = sample.token_id
        request.tokens.append(token)
        if sample.logprobs is not None:
            output.logprobs.append(sample.logprobs)
        if token in request.stop_ids and request.num_generated > request.params.min_tokens:
            output.finish_reason, output.stop_token_id = FinishReason.STOP, token
            return output
        output.token_ids.append(token)
        if len(request.tokens) >= self.info.max_model_len or request.num_generated >= request.params.max_tokens:
            output.finish_reason = FinishReason.LENGTH
        return output

    def _check_ids(self, request: Request) -> None:
        """Raises ValueError for a token id, of the prompt or the parameters, that the model does not have."""
        size, ids = self.info.vocab_size, request.tokens
        if ids and not 0 <= min(ids) <= max(ids) < size:
            strange = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(f"the prompt holds token id {strange}; the model has {size} tokens, from 0 to {size - 1}")
        if problem := request.params.problem(size):
            raise ValueError(problem)
