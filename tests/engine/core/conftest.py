"""A runner without a model that can still be wrong: it keeps a paged cache and answers from what it reads there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import pytest

from pagoda_engine.core.admission import Admission
from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore, EngineInfo, Sample
from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Scheduler, SchedulerConfig, Work
from pagoda_engine.sampling_params import SamplingParams

VOCABULARY = 11
EOS = 3


def mix(state: int, token: int) -> int:
    """The 'key and value' of a token: depends on it and on all tokens before it, as attention's do."""
    return (state * 1_000_003 + token + 1) % (2**61 - 1)


def chain(tokens: Sequence[int]) -> list[int]:
    return list(itertools.accumulate(tokens, mix, initial=1))[1:]


def next_token(state: int) -> int:
    return (state >> 7) % VOCABULARY


def expected_answer(prompt: list[int], params: SamplingParams, max_model_len: int) -> list[int]:
    """What a request must get, computed without any engine; the stop token is left out."""
    tokens = list(prompt)
    while len(tokens) < min(len(prompt) + params.max_tokens, max_model_len):
        token = next_token(chain(tokens)[-1])
        if token == EOS and not params.ignore_eos and len(tokens) - len(prompt) >= params.min_tokens:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


@dataclasses.dataclass(frozen=True)
class Job:
    """A work as it was when it was launched: what changes in the request afterwards must not matter."""

    request: Request
    work: Work
    known: list[int]
    in_flight: bool
    slots: list[int]


class CacheRunner:
    """Writes each token's state to its slot of a paged cache, and reads the whole prefix back to choose a token.

    With `overlaps` nothing of a launch is computed before its samples are asked for: the latest that a device can be.
    """

    def __init__(self, num_blocks: int, block_size: int, *, overlaps: bool = False) -> None:
        self.cache = [0] * (num_blocks * block_size)
        self.block_size = block_size
        self.overlaps = overlaps
        self.steps = 0
        self.tokens = 0
        self.truth: dict[Request, list[int]] = {}
        self.broken: set[str] = set()
        self.latest: dict[Request, Sample] = {}
        self.log: list[str] = []

    def launch(self, batch: Sequence[Work]) -> Pass:
        self.steps += 1
        self.tokens += sum(map(len, batch))
        self.log.append(f"launch {self.steps}")
        launched = Pass(self, self.steps, [self.job(work) for work in batch])
        if not self.overlaps:
            launched.compute()
        return launched

    def job(self, work: Work) -> Job:
        blocks, size = work.request.blocks, self.block_size
        slots = [blocks[position // size] * size + position % size for position in range(work.stop)]
        return Job(work.request, work, work.known, work.in_flight, slots)

    def compute(self, jobs: Sequence[Job]) -> list[Sample]:
        samples = {job.request: self.choose(job) for job in jobs}
        self.latest = {job.request: samples[job.request] for job in jobs if job.work.samples}
        return [samples[job.request] for job in jobs if job.work.rows]

    def choose(self, job: Job) -> Sample:
        tokens = [self.latest[job.request].token_id] if job.in_flight else job.known
        assert len(tokens) == len(job.work)
        state = self.cache[job.slots[job.work.start - 1]] if job.work.start else 1
        for position, token in enumerate(tokens, job.work.start):
            state = mix(state, token)
            self.cache[job.slots[position]] = state
        if job.request.id in self.broken:
            return Sample(error="logits are not finite")
        truth = self.truth.setdefault(job.request, [])
        for position in range(len(truth), job.work.stop):
            known = job.request.tokens[position : position + 1] or tokens[-1:]
            truth.append(mix(truth[-1] if truth else 1, known[0]))
        assert [self.cache[slot] for slot in job.slots] == truth[: job.work.stop], "the cache holds others' tokens"
        scored = tuple(self.score(job, position) for position in job.work.rows[: job.work.scored])
        return Sample(next_token(state) if job.work.samples else -1, prompt_logprobs=scored)

    def score(self, job: Job, position: int) -> Logprobs:
        """The 'log-probability' of the token after a position: the state there, which its logits would come from."""
        return Logprobs(job.request.tokens[position + 1], -float(self.cache[job.slots[position]]), 1, [], [])


class Pass:
    """A launch of a `CacheRunner`."""

    def __init__(self, runner: CacheRunner, number: int, jobs: list[Job]) -> None:
        self.runner = runner
        self.number = number
        self.jobs = jobs
        self.results: list[Sample] | None = None

    def compute(self) -> list[Sample]:
        if self.results is None:
            self.results = self.runner.compute(self.jobs)
        return self.results

    def samples(self) -> list[Sample]:
        self.runner.log.append(f"read {self.number}")
        return self.compute()


class Eager(Admission):
    """Lets in whoever fits now and leaves those that run a block each: so that requests do get in each other's way."""

    def allows(self, request: Request, new: int, free: int, running: Sequence[Request]) -> bool:
        return new + len(running) <= free


class Rig:
    """An engine core over a `CacheRunner`, with its parts in reach."""

    def __init__(
        self,
        num_blocks: int = 16,
        block_size: int = 4,
        max_num_seqs: int = 8,
        max_num_batched_tokens: int = 32,
        max_prefill_tokens: int = 32,
        max_model_len: int = 64,
        *,
        overlaps: bool = False,
        eager: bool = False,
        **options,
    ) -> None:
        self.now = 100.0
        self.blocks = BlockPool(num_blocks, block_size)
        config = SchedulerConfig(max_num_seqs, max_num_batched_tokens, max_prefill_tokens, max_model_len, **options)
        self.scheduler = Scheduler(config, self.blocks, clock=lambda: self.now)
        if eager:
            self.scheduler.admission = Eager(self.blocks)
        self.runner = CacheRunner(num_blocks, block_size, overlaps=overlaps)
        info = EngineInfo(max_model_len, VOCABULARY, frozenset({EOS}), num_blocks, block_size)
        self.engine = EngineCore(self.scheduler, self.runner, info)

    def request(self, id_: str, prompt: list[int], *, salt: str = "", priority: int = 0, **params) -> Request:
        sampling = SamplingParams(**{"ignore_eos": True, **params})
        return Request(id_, prompt, sampling, frozenset({EOS}), self.now, priority, salt)

    def drain(self, limit: int = 10_000) -> dict[str, list]:
        """Step until idle and return each request's outputs."""
        outputs: dict[str, list] = {}
        for _ in range(limit):
            if not self.engine.has_work:
                return outputs
            for output in self.engine.step():
                outputs.setdefault(output.request_id, []).append(output)
        raise AssertionError(f"not idle after {limit} steps")


@pytest.fixture
def make_rig() -> Callable[..., Rig]:
    return Rig


@pytest.fixture
def prompt_scores() -> Callable[[list[int]], list[Logprobs]]:
    """What `CacheRunner.score` must have said of a prompt."""

    def score(prompt: list[int]) -> list[Logprobs]:
        return [
            Logprobs(token, -float(state), 1, [], []) for token, state in zip(prompt[1:], chain(prompt), strict=False)
        ]

    return score


@pytest.fixture
def answer() -> Callable[[list[int], SamplingParams, int], list[int]]:
    return expected_answer
