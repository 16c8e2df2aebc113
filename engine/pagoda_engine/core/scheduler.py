"""What the next step computes. No phases: every request has pending tokens, and a step hands out a budget of them."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagoda_engine.core.blocks import BlockPool, extend_hashes
from pagoda_engine.core.request import Request


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """The limits of a step and of a request.

    `max_num_seqs` requests run at once. A step computes at most `max_num_batched_tokens` tokens, and at most
    `max_prefill_tokens` of prompts when others decode beside them, so that a long prompt does not stall their
    streams. `max_model_len` bounds prompt and output together. `max_scored_tokens` bounds the prompt tokens of a step
    whose log-probabilities are wanted: each of them takes a row of logits, as wide as the vocabulary.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_prefill_tokens: int
    max_model_len: int
    max_scored_tokens: int = 64

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
    """First come, first served, running requests first.

    `running` and then `waiting` are in the order of arrival at all times. When blocks run out the latest arrival is
    preempted: it gives its blocks back and will be computed anew (or found in the cache). The earliest arrival can
    therefore always go on, and since no request is accepted that would not fit in the cache alone, each one ends.
    """

    def __init__(self, config: SchedulerConfig, blocks: BlockPool, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.blocks = blocks
        self.preemptions = 0
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self._clock = clock
        self._arrivals = 0

    def refusal(self, request: Request) -> str | None:
        """Why a request can never be served, as a sentence with the fix, or None."""
        if problem := request.params.problem():
            return problem
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
        request.sequence = self._arrivals
        request.longest = self._longest(request)
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request, wherever it is, and free its blocks."""
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self._release(request)

    def schedule(self) -> list[Work]:
        """Choose the next step's work and allocate its blocks; requests advance as if it were computed already.

        Empty only if there is no request but those whose last token is in flight.
        """
        budget = self.config.max_num_batched_tokens
        decoding = sum(request.pending == 1 for request in self.running)
        # Decoders' tokens are set aside first: a prompt that arrived earlier must not starve them.
        prefill = min(budget, self.config.max_prefill_tokens) if decoding else budget
        prefill = min(prefill, budget - decoding)
        preemptions = self.preemptions
        scored = self.config.max_scored_tokens
        batch: list[Work] = []

        index = 0
        while index < len(self.running):
            request = self.running[index]
            pending = request.pending
            count = min(pending, prefill) if pending > 1 else pending
            if _scores(request):
                count = min(count, scored)
            if count > 0:
                if not self._grow(request, count):
                    break  # it was the latest itself, and waits again
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
            count = min(request.pending, prefill)
            if _scores(request):
                count = min(count, scored)
            prefill -= count
            batch.append(self._work(request, count))
            scored -= batch[-1].scored
        return batch

    def commit(self, work: Work) -> None:
        """Note that a work is computed, and file the blocks that it filled, unless they were taken away since."""
        request, size = work.request, self.blocks.block_size
        if request.computed < work.stop:
            return  # preempted while it was in flight
        extend_hashes(request.block_hashes, request.tokens, size, request.cache_salt)
        for position in range(work.start // size, work.stop // size):
            self.blocks.file(request.blocks[position], request.block_hashes[position])

    def check_integrity(self) -> None:
        """Raise RuntimeError unless queues and blocks agree. Cheap enough for whenever the engine is idle."""
        order = [request.sequence for request in self.requests()]
        if order != sorted(set(order)):
            raise RuntimeError(f"requests are out of order: {order}")
        if holding := [request.id for request in self.waiting if request.blocks]:
            raise RuntimeError(f"waiting requests hold blocks: {holding}")
        self.blocks.check_integrity(request.blocks for request in self.running)

    def requests(self) -> Iterator[Request]:
        """All requests in the order of arrival."""
        yield from self.running
        yield from self.waiting

    def _longest(self, request: Request) -> int:
        """Tokens that must be in the cache at once in the longest case; the last one made is never computed."""
        return min(len(request.prompt_token_ids) + request.params.max_tokens, self.config.max_model_len) - 1

    def _admit(self, request: Request) -> bool:
        """Move the first waiting request to `running` with blocks for all of its tokens, if there are as many.

        All at once, although a long prompt is computed in chunks: half-admitted prompts that starve each other would
        be preempted over and over.
        """
        size = self.blocks.block_size
        extend_hashes(request.block_hashes, request.tokens, size, request.cache_salt)
        # The last token is always computed: its output is what the next one is sampled from. So are all tokens of a
        # prompt that is to be scored: the cache keeps no logits.
        known = 0 if request.unscored else (len(request.tokens) - 1) // size
        found = self.blocks.find(request.block_hashes[:known])
        needed = self.blocks.blocks_for(len(request.tokens)) - len(found)
        available = self.blocks.num_free - sum(self.blocks.is_free(block) for block in found)
        # One spare block for each running request keeps a newcomer from being preempted a moment later. Alone, a
        # request needs no spare, so whatever was accepted is admitted in the end.
        if needed + len(self.running) > available:
            return False
        self.waiting.popleft()
        self.blocks.hold(found)
        request.blocks = found + self.blocks.allocate(needed)
        request.computed = len(found) * size
        if request.started_time is None:
            request.started_time = self._clock()
        self.running.append(request)
        return True

    def _grow(self, request: Request, count: int) -> bool:
        """Allocate blocks for the next `count` tokens, preempting later arrivals, at last the request itself."""
        needed = self.blocks.blocks_for(request.computed + count) - len(request.blocks)
        while needed > self.blocks.num_free:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        if needed > 0:
            request.blocks += self.blocks.allocate(needed)
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._release(request)
        self.waiting.appendleft(request)
        self.preemptions += 1

    def _release(self, request: Request) -> None:
        self.blocks.release(request.blocks)
        request.blocks = []
        request.computed = 0

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
