"""A runner without a model that can still be wrong: it keeps a paged cache and answers from what it reads there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore, EngineInfo, Sample
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


class CacheRunner:
    """Writes each token's state to its slot of a paged cache, and reads the whole prefix back to choose a token."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.cache = [0] * (num_blocks * block_size)
        self.block_size = block_size
        self.steps = 0
        self.truth: dict[str, list[int]] = {}
        self.broken: set[str] = set()

    def run(self, batch: Sequence[Work]) -> list[Sample]:
        self.steps += 1
        samples = []
        for work in batch:
            request = work.request
            slots = [
                request.blocks[position // self.block_size] * self.block_size + position % self.block_size
                for position in range(work.stop)
            ]
            state = self.cache[slots[work.start - 1]] if work.start else 1
            for position in range(work.start, work.stop):
                state = mix(state, request.tokens[position])
                self.cache[slots[position]] = state
            if work.samples:
                if request.id in self.broken:
                    samples.append(Sample(error="logits are not finite"))
                    continue
                truth = self.truth.setdefault(request.id, [])
                for token in request.tokens[len(truth) :]:
                    truth.append(mix(truth[-1] if truth else 1, token))
                assert [self.cache[slot] for slot in slots] == truth, "the cache holds others' tokens"
                samples.append(Sample(next_token(state)))
        return samples


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
    ) -> None:
        self.now = 100.0
        self.blocks = BlockPool(num_blocks, block_size)
        config = SchedulerConfig(max_num_seqs, max_num_batched_tokens, max_prefill_tokens, max_model_len)
        self.scheduler = Scheduler(config, self.blocks, clock=lambda: self.now)
        self.runner = CacheRunner(num_blocks, block_size)
        info = EngineInfo(max_model_len, VOCABULARY, frozenset({EOS}), num_blocks, block_size)
        self.engine = EngineCore(self.scheduler, self.runner, info)

    def request(self, id_: str, prompt: list[int], *, salt: str = "", **params) -> Request:
        sampling = SamplingParams(**{"ignore_eos": True, **params})
        return Request(id_, prompt, sampling, frozenset({EOS}), self.now, cache_salt=salt)

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
def answer() -> Callable[[list[int], SamplingParams, int], list[int]]:
    return expected_answer
