"""Long random lives of the core: arrivals, aborts, errors, tiny caches. Nothing leaks, starves or is answered wrong."""

import itertools
import random
from typing import Any

import pytest

from pagoda_engine.core.request import FinishReason

ARRIVALS_UNTIL = 150  # steps of a life in which requests arrive; it lasts until all have ended
LIVES = 40
LONG_RUNS, STEPS_OF_A_LONG_RUN = 10, 100_000


def random_shape(dice: random.Random) -> dict[str, Any]:
    block_size = dice.choice([1, 2, 4, 16])
    budget = dice.choice([1, 2, 5, 16, 64])
    return {
        "block_size": block_size,
        "num_blocks": dice.randint(-(-24 // block_size), 120 // block_size + 2),
        "max_num_seqs": dice.randint(1, min(budget, 12)),
        "max_num_batched_tokens": budget,
        "max_prefill_tokens": dice.randint(1, budget),
        "max_model_len": dice.randint(4, 60),
        "max_scored_tokens": dice.choice([1, 3, 64]),
        "long_prefill_token_threshold": dice.choice([0, 0, 1, 4]),
        "priority": dice.random() < 0.4,
        "prefix_caching": dice.random() < 0.8,
        "overlaps": dice.random() < 0.5,
        "eager": dice.random() < 0.5,
    }


def random_prompt(dice: random.Random) -> list[int]:
    """Prompts over two tokens with common beginnings, so that prefixes are shared and collisions would show."""
    shared = [1] * dice.choice([0, 0, 3, 8, 16, 17])
    return shared + [dice.randint(0, 1) for _ in range(dice.choice([0, 1, 2, 5, 12, 40]))]


def progress(request) -> int:
    """Steps that a request has behind it, as a number that must grow while it is the first in line."""
    return 1000 * len(request.tokens) + request.computed


class Life:
    """Requests of all kinds come to one core, some go again, and in the end it is idle."""

    def __init__(self, make_rig, answer, prompt_scores, seed: int) -> None:
        self.dice = random.Random(seed)
        self.rig = make_rig(**random_shape(self.dice))
        self.rate = self.dice.choice([0.05, 0.3, 0.7])
        self.answer, self.prompt_scores = answer, prompt_scores
        self.alive, self.texts, self.scores = {}, {}, {}
        self.arrivals = self.aborts = 0

    def live(self) -> int:
        """Returns the number of steps."""
        for step in itertools.count():
            if step < ARRIVALS_UNTIL:
                self.come()
            elif not self.rig.engine.has_work:
                break
            if self.alive and self.dice.random() < 0.05:
                self.go()
            self.step()
            if step % 8 == 0:
                self.rig.engine.check_integrity()
            assert step < 100_000, "it must come to an end"
        self.rig.engine.check_integrity()
        assert self.alive == {}, "every request must end"
        assert self.rig.engine.stats().kv_usage == 0, "no block may be lost"
        return step

    def come(self) -> None:
        dice, rig = self.dice, self.rig
        while dice.random() < self.rate:
            request = rig.request(
                str(self.arrivals),
                random_prompt(dice),
                salt=dice.choice(["", "", "other"]),
                priority=dice.randint(-2, 2) if rig.scheduler.config.priority else 0,
                max_tokens=dice.randint(1, 30),
                ignore_eos=dice.random() < 0.5,
                prompt_logprobs=dice.choice([None, None, 0]),
            )
            self.arrivals += 1
            if dice.random() < 0.03:
                rig.runner.broken.add(request.id)
            rig.engine.add(request)
            self.alive[request.id], self.texts[request.id], self.scores[request.id] = request, [], []

    def go(self) -> None:
        victim = self.dice.choice(list(self.alive))
        self.rig.engine.abort(victim)
        self.aborts += 1
        if self.alive[victim].turn[1]:  # else it was refused, which has not been told yet
            del self.alive[victim]

    def step(self) -> None:
        first = next(self.rig.scheduler.requests(), None)
        before = progress(first) if first else 0
        for output in self.rig.engine.step():
            request = self.alive[output.request_id]
            self.texts[request.id] += output.token_ids
            self.scores[request.id] += output.prompt_logprobs
            if output.finish_reason is not None:
                self.end(request, output)
        if first is not None and first.id in self.alive:
            assert progress(first) > before, "the first in line must advance in every step"

    def end(self, request, output) -> None:
        del self.alive[request.id]
        text, scores = self.texts.pop(request.id), self.scores.pop(request.id)
        self.rig.runner.truth.pop(request, None)
        if output.finish_reason is FinishReason.ERROR:
            assert request.turn[1] == 0 or request.id in self.rig.runner.broken, output.error
            return
        assert text == self.answer(request.prompt_token_ids, request.params, self.rig.scheduler.config.max_model_len)
        asked = request.params.prompt_logprobs is not None
        assert scores == (self.prompt_scores(request.prompt_token_ids) if asked else [])


@pytest.mark.parametrize("life", range(LIVES))
def test_every_request_ends_with_its_own_answer_and_no_block_is_lost(make_rig, answer, prompt_scores, life):
    one = Life(make_rig, answer, prompt_scores, life)
    one.live()
    assert one.arrivals > 0


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("run", range(LONG_RUNS))
def test_a_million_steps_lose_nothing(make_rig, answer, prompt_scores, run):
    """The same for a million steps in all, each life with a core of another shape."""
    steps = arrivals = aborts = preemptions = 0
    for life in itertools.count(1_000_000 * (run + 1)):
        one = Life(make_rig, answer, prompt_scores, life)
        steps += one.live()
        arrivals += one.arrivals
        aborts += one.aborts
        preemptions += one.rig.scheduler.preemptions
        if steps >= STEPS_OF_A_LONG_RUN:
            break
    print(f"{steps} steps, {arrivals} requests, {aborts} aborts, {preemptions} preemptions")
    assert min(arrivals, aborts, preemptions) > 100
