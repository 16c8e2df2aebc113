"""What the next step computes. No phases: every request has pending tokens, and a step hands out a budget of them."""

from __future__ import annotations

import itertools
import time
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagoda_engine.core.admission import Admission
from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.request import Request
from pagoda_engine.core.tables import BlockTables


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """The limits of a step and of a request.

    `max_num_seqs` requests run at once. A step computes at most `max_num_batched_tokens` tokens, and at most
    `max_prefill_tokens` of prompts when others decode beside them, so that a long prompt does not stall their
    streams. `max_model_len` bounds prompt and output together. No prompt gets more than `long_prefill_token_threshold`
    tokens of a step, so that short ones pass a long one; 0 is no limit.

    `max_scored_tokens` bounds the prompt tokens of a step whose log-probabilities are wanted: each of them takes a row
    of logits, as wide as the vocabulary.

    With `priority` requests stand in line by their own priority, the lowest number first, before their arrival.
    `prefix_caching` lets requests share the blocks of common beginnings.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_prefill_tokens: int
    max_model_len: int
    max_scored_tokens: int = 64
    long_prefill_token_threshold: int = 0
    priority: bool = False
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        for name in (
            "max_num_seqs",
            "max_num_batched_tokens",
            "max_prefill_tokens",
            "max_model_len",
            "max_scored_tokens",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_num_seqs > self.max_num_batched_tokens:
            raise ValueError(
                f"max_num_seqs is {self.max_num_seqs}, max_num_batched_tokens {self.max_num_batched_tokens}: "
                "each running request needs a token in every step; raise the latter or lower the former"
            )


@dataclass(frozen=True, slots=True)
class Work:
    """Compute the tokens at positions `start` to `stop`; their blocks are allocated.

    `samples` says that a next token is wanted, the one at position `stop`. `scored` prompt tokens have their
    log-probabilities taken, each from the logits at the position before it.
    """

    request: Request
    start: int
    stop: int
    samples: bool
    scored: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> range:
        """The positions whose logits are wanted, always the last ones: those that score, then the one that samples."""
        return range(self.stop - self.samples - self.scored, self.stop)

    @property
    def known(self) -> array[int]:
        """The ids of its tokens; empty where its only one is in flight."""
        return self.request.tokens[self.start : self.stop]

    @property
    def in_flight(self) -> bool:
        """Whether its only token, when it is launched, is still being made by the launch just before."""
        return self.stop > len(self.request.tokens)


class Scheduler:
    """Running requests first, then those that wait; within each, whoever is first in line.

    The line is the order of arrival, or with `priority` that within equal priorities; `running` and `waiting` are kept
    in its order. When blocks run out the last in line is preempted: it gives its blocks back and will be computed anew
    (or found in the cache). So the first in line that runs can always go on, the first that waits is overtaken by
    nobody behind it, and since no request is accepted that would not fit in the cache alone, each one ends.
    """

    def __init__(self, config: SchedulerConfig, blocks: BlockPool, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.blocks = blocks
        self.tables = BlockTables(blocks, caching=config.prefix_caching)
        self.admission = Admission(blocks)
        self.preemptions = 0
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self._clock = clock
        self._arrivals = 0
        self._turned_away: Request | None = None  # it was not admitted, and nothing has changed since

    def refusal(self, request: Request) -> str | None:
        """Why a request can never be served, as a sentence with the fix, or None."""
        if problem := request.params.problem():
            return problem
        if request.priority and not self.config.priority:
            return (
                f"priority is {request.priority}; leave it out, or start the server with --scheduling-policy priority"
            )
        length = len(request.prompt_token_ids)
        if length == 0:
            return "the prompt is empty; send at least one token"
        if length >= self.config.max_model_len:
            return (
                f"the prompt has {length} tokens, and --max-model-len {self.config.max_model_len} leaves no room for "
                "an answer; shorten the prompt"
            )
        capacity = self.blocks.num_blocks * self.blocks.block_size
        if self._longest(request) > capacity:
            return (
                f"prompt and max_tokens come to {self._longest(request)} tokens, and the whole KV cache holds "
                f"{capacity}; lower max_tokens, shorten the prompt, or give the engine a larger KV cache"
            )
        return None

    def add(self, request: Request) -> None:
        """Queue a request. Raises ValueError with the refusal."""
        if problem := self.refusal(request):
            raise ValueError(problem)
        self._arrivals += 1
        request.turn = (request.priority, self._arrivals)
        request.longest = self._longest(request)
        insort(self.waiting, request, key=_turn)

    def remove(self, request: Request) -> None:
        """Forget a request, wherever it is, and free its blocks."""
        if not _take(self.waiting, request):
            self._stop(request)
        self.admission.answered(request.num_generated)

    def schedule(self) -> list[Work]:
        """Choose the next step's work and allocate its blocks; requests advance as if it were computed already.

        Empty only if there is no request but those whose last token is in flight.
        """
        budget = self.config.max_num_batched_tokens
        decoding = sum(request.pending == 1 for request in self.running)
        # Decoders' tokens are set aside first: a prompt that arrived earlier must not starve them.
        prefill = min(budget, self.config.max_prefill_tokens) if decoding else budget
        prefill = min(prefill, budget - decoding)
        most = self.config.long_prefill_token_threshold or budget
        preemptions = self.preemptions
        scored = self.config.max_scored_tokens
        batch: list[Work] = []

        index = 0
        while index < len(self.running):
            request = self.running[index]
            pending = request.pending
            count = min(pending, prefill, most) if pending > 1 else pending
            if _scores(request):
                count = min(count, scored)
            if count > 0:
                if not self._grow(request, count):
                    break  # it was the last in line itself, and waits again
                if pending > 1:
                    prefill -= count
                batch.append(self._work(request, count))
                scored -= batch[-1].scored
            index += 1

        # The blocks of who was just preempted are another's now. Nor may it come back while its token is in flight.
        preempted = self.preemptions > preemptions
        while self.waiting and not preempted and len(self.running) < self.config.max_num_seqs and prefill > 0:
            request = self.waiting[0]
            if (request.unscored and not scored) or not self._admit(request):
                break
            count = min(request.pending, prefill, most)
            if _scores(request):
                count = min(count, scored)
            prefill -= count
            batch.append(self._work(request, count))
            scored -= batch[-1].scored
        return batch

    def commit(self, work: Work) -> None:
        """Note that a work is computed: what it filled may be shared, unless it was taken away since."""
        request = work.request
        if request.computed < work.stop:
            return  # preempted while it was in flight
        self.tables.file(request, work.start, work.stop)
        if len(work) > 1:
            self._turned_away = None  # who waits may find its own prompt's beginning now

    def check_integrity(self) -> None:
        """Raise RuntimeError unless queues and blocks agree. Cheap enough for whenever the engine is idle."""
        for queue in (self.running, self.waiting):
            turns = [request.turn for request in queue]
            if turns != sorted(set(turns)):
                raise RuntimeError(f"requests are out of line: {turns}")
        if holding := [request.id for request in self.waiting if request.blocks]:
            raise RuntimeError(f"waiting requests hold blocks: {holding}")
        self.blocks.check_integrity(request.blocks for request in self.running)

    def requests(self) -> Iterator[Request]:
        """All requests, first those that run."""
        return itertools.chain(self.running, self.waiting)

    def _longest(self, request: Request) -> int:
        """Tokens that must be in the cache at once in the longest case; the last one made is never computed."""
        return min(len(request.prompt_token_ids) + request.params.max_tokens, self.config.max_model_len) - 1

    def _admit(self, request: Request) -> bool:
        """Move the first waiting request to `running`, with blocks for all of its tokens, if it may start.

        All at once, although a long prompt is computed in chunks: half-admitted prompts that starve each other would
        be preempted over and over.
        """
        if request is self._turned_away:
            return False
        prefix = self.tables.prefix(request)
        new = self.blocks.blocks_for(len(request.tokens)) - len(prefix)
        free = self.blocks.num_free - sum(map(self.blocks.is_free, prefix))
        if not self.admission.allows(request, new, free, self.running):
            self._turned_away = request
            return False
        self.waiting.pop(0)
        self.tables.open(request, prefix, new)
        if request.started_time is None:
            request.started_time = self._clock()
        self.admission.entered(request)
        insort(self.running, request, key=_turn)
        return True

    def _grow(self, request: Request, count: int) -> bool:
        """Allocate blocks for the next `count` tokens, preempting the last in line, in the end the request itself."""
        while not self.tables.grow(request, request.computed + count):
            victim = self.running[-1]
            self._stop(victim)
            insort(self.waiting, victim, key=_turn)
            self.preemptions += 1
            if victim is request:
                return False
        return True

    def _stop(self, request: Request) -> None:
        """End a request's running, for now or for good."""
        _take(self.running, request)
        self.tables.close(request)
        self.admission.left(request)
        self._turned_away = None

    @staticmethod
    def _work(request: Request, count: int) -> Work:
        start, request.computed = request.computed, request.computed + count
        samples = request.computed == request.length
        request.in_flight += samples
        return Work(request, start, request.computed, samples, _scored(request, start, request.computed))


def _scores(request: Request) -> bool:
    """Whether the next tokens to compute are prompt tokens that have the one after them scored."""
    return request.params.prompt_logprobs is not None and request.computed < len(request.prompt_token_ids) - 1


def _scored(request: Request, start: int, stop: int) -> int:
    """How many prompt tokens the positions from `start` to `stop` score. What was known before a preemption stays."""
    if request.params.prompt_logprobs is None:
        return 0
    first = max(start, len(request.prompt_logprobs))
    return max(0, min(stop, len(request.prompt_token_ids) - 1) - first)


def _turn(request: Request) -> tuple[int, int]:
    return request.turn


def _take(line: list[Request], request: Request) -> bool:
    """Take a request out of a line; False if it does not stand in it."""
    index = bisect_left(line, request.turn, key=_turn)
    if index == len(line) or line[index] is not request:
        return False
    del line[index]
    return True
