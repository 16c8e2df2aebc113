"""A step's choice: greedy or drawn, edited or scored, and no row changes another."""

import itertools
import math
import random

import pytest
import torch

from pagoda_engine.core.engine import Sample
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.logits.distribution import uniform
from pagoda_engine.model.sampler import choose, plain, unedited
from pagoda_engine.sampling_params import SamplingParams

VOCABULARY = 50


def request(prompt=(1, 2, 3), seed=0, eos=(), output=(), **params) -> Request:
    made = Request("r", list(prompt), SamplingParams(**params), frozenset(eos), 0.0)
    made.seed = seed
    made.tokens.extend(output)
    return made


def work(one: Request) -> Work:
    return Work(one, 0, len(one.tokens), samples=True)


def sample(rows: torch.Tensor, requests: list[Request]) -> list[Sample]:
    return choose(rows, [work(one) for one in requests]).read()


def logits(rows=1, seed=0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def best(row: torch.Tensor, count: int) -> list[int]:
    return row.topk(count).indices.tolist()


def test_drawn_tokens_are_distributed_as_they_should_be():
    """Chi-squared over 20,000 seeds; the limit is exceeded by chance once in a million."""
    count, row = 20_000, logits()
    batch = [request(seed=seed, temperature=0.8, top_k=10, repetition_penalty=1.3) for seed in range(count)]
    drawn = [one.token_id for one in sample(row.expand(count, -1), batch)]
    weights = row[0].tolist()
    for token in (1, 2, 3):
        weights[token] = weights[token] / 1.3 if weights[token] > 0 else weights[token] * 1.3
    kept = sorted(range(VOCABULARY), key=lambda token: -weights[token])[:10]
    total = sum(math.exp(weights[token] / 0.8) for token in kept)
    expected = {token: count * math.exp(weights[token] / 0.8) / total for token in kept}
    assert set(drawn) <= set(kept)
    squares = sum((drawn.count(token) - expected[token]) ** 2 / expected[token] for token in kept)
    assert squares < 45.1, "chi-squared with 9 degrees of freedom"


def test_the_random_numbers_are_uniform_and_independent_over_positions():
    numbers = [uniform(seed, position) for seed in range(40) for position in range(500)]
    assert 0 <= min(numbers) < max(numbers) < 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.01
    neighbours = [(a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(numbers)]
    assert abs(sum(neighbours) / len(neighbours)) < 0.005
    assert len(set(numbers)) == len(numbers)


def test_greedy_is_the_likeliest_token_whoever_is_beside():
    rows = logits(3)
    batch = [request(temperature=0), request(temperature=5.0), request(temperature=0)]
    tokens = [one.token_id for one in sample(rows, batch)]
    assert (tokens[0], tokens[2]) == (rows[0].argmax().item(), rows[2].argmax().item())


MIXED = [
    {"temperature": 0},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 0.5, "top_k": 5, "logprobs": 3},
    {"temperature": 0, "repetition_penalty": 1.5},
    {"temperature": 1.0, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"temperature": 0, "logit_bias": {7: 100.0}},
    {"temperature": 1.0, "allowed_token_ids": (4, 5, 6)},
    {"temperature": 0, "bad_token_ids": ((3,), (1, 2))},
    {"temperature": 1.0, "min_p": 0.1, "min_tokens": 9},
    {"temperature": 0, "logprobs": 0},
]


def test_a_token_depends_on_seed_position_and_its_own_parameters_and_not_on_the_batch():
    dice = random.Random(1)
    batch = [
        request(range(row % 7 + 1), seed=row, eos=[2], output=dice.choices(range(VOCABULARY), k=row % 5), **params)
        for row, params in enumerate(MIXED * 3)
    ]
    rows = logits(len(batch))
    together = sample(rows, batch)
    assert [sample(rows[row : row + 1], [batch[row]])[0].token_id for row in range(len(batch))] == [
        one.token_id for one in together
    ]
    others = [sample(rows[:1], [request(range(length), temperature=1.0)])[0].token_id for length in range(1, 50)]
    assert len(set(others)) > 5, "each position must have a number of its own"


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("params", MIXED, ids=str)
def test_a_row_that_is_not_finite_fails_alone(poison, params):
    """Also where the poison stands at a token that is forbidden anyway."""
    rows = logits(3)
    clean = sample(rows, [request(**params) for _ in range(3)])
    rows[1, 17] = poison
    choice = choose(rows, [work(request(**params)) for _ in range(3)])
    found = choice.read()
    assert [found[0], found[2]] == [clean[0], clean[2]]
    assert found[1].error is not None
    assert "not finite" in found[1].error
    assert 0 <= choice.tokens[1] < VOCABULARY, "the next launch may look it up before anybody reads the error"


def test_a_row_without_any_token_left_says_so_and_fails_alone():
    rows = logits(2)
    batch = [request(temperature=1.0), request(temperature=1.0, allowed_token_ids=(4,), bad_token_ids=((4,),))]
    found = sample(rows, batch)
    assert found[0] == sample(rows[:1], batch[:1])[0]
    assert "no token may come next" in found[1].error


def test_the_smallest_temperature_is_greedy_and_makes_no_infinity():
    rows = logits(1)
    assert sample(rows, [request(temperature=5e-324)])[0].token_id == rows[0].argmax().item()
    assert sample(rows * 1e30, [request(temperature=1e-300)])[0].token_id == rows[0].argmax().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_callers_logits_stay_as_they_were(dtype):
    rows = logits(len(MIXED)).to(dtype)
    before = rows.clone()
    sample(rows, [request(eos=[1], **params) for params in MIXED])
    assert torch.equal(rows, before)


def test_tokens_that_end_a_request_are_impossible_before_min_tokens():
    rows = logits(1)
    first, second = best(rows[0], 2)
    assert sample(rows, [request(temperature=0, eos=[first])])[0].token_id == first
    assert sample(rows, [request(temperature=0, eos=[first], min_tokens=1)])[0].token_id == second
    late = request(temperature=0, eos=[first], min_tokens=1, output=[9])
    assert sample(rows, [late])[0].token_id == first
    assert sample(rows, [request(temperature=0, stop_token_ids=(first, 10**6), min_tokens=1)])[0].token_id == second


def test_the_position_is_the_works_and_not_the_length_of_what_is_known():
    """With a token in flight the request knows one token less than there are before the one to choose."""
    one = request(temperature=1.0, min_tokens=1, eos=[9], output=[5])
    known = choose(logits(), [Work(one, 3, 4, samples=True)]).read()
    one.tokens.pop()
    assert choose(logits(), [Work(one, 3, 4, samples=True)]).read() == known


def test_works_that_want_a_token_and_no_more_are_told_apart_from_the_others():
    works = [work(request(eos=[1], **params)) for params in MIXED]
    assert [plain(one) for one in works] == [True] + [False] * 9
    assert [unedited(one) for one in works] == [True, True] + [False] * 8
    chunk = Work(request(temperature=0), 0, 2, samples=False)
    assert not plain(chunk)
    assert not unedited(chunk)
    assert not plain(Work(request(temperature=0, prompt_logprobs=0), 0, 3, samples=True, scored=2))


def test_plain_greedy_rows_cost_no_copy_of_the_logits():
    """All that is allocated is as large as the number of rows."""
    rows = logits(64)
    works = [work(request(temperature=0)) for _ in range(64)]
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        choose(rows, works)
    allocated = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < allocated <= 64 * 8 + 64 * 4 < rows.nbytes


def reference_logprobs(row: torch.Tensor, token: int) -> tuple[float, int]:
    scores = row.double().log_softmax(-1)
    return scores[token].item(), 1 + int((scores > scores[token]).sum())


def test_logprobs_are_of_the_models_own_distribution_whatever_is_asked_beside():
    rows = logits(2)
    batch = [
        request(temperature=0.5, top_k=2, logit_bias={8: 50.0}, logprobs=4, repetition_penalty=2.0),
        request(temperature=0, logprobs=0),
    ]
    for row, found in zip(rows, sample(rows, batch), strict=True):
        scores = found.logprobs
        logprob, rank = reference_logprobs(row, found.token_id)
        assert (scores.token_id, scores.rank) == (found.token_id, rank)
        assert scores.logprob == pytest.approx(logprob, abs=1e-5)
        assert scores.top_ids == best(row, len(scores.top_ids))
        assert scores.top_logprobs == pytest.approx(
            [reference_logprobs(row, one)[0] for one in scores.top_ids], abs=1e-5
        )
    assert [len(one.logprobs.top_ids) for one in sample(rows, batch)] == [4, 0]
    assert sample(rows, batch)[0].token_id == 8
    assert sample(rows[:1], [request(temperature=0)])[0].logprobs is None


def test_more_logprobs_than_there_are_tokens_are_all_there_are():
    [found] = sample(logits(), [request(temperature=0, logprobs=10**6)])
    assert sorted(found.logprobs.top_ids) == list(range(VOCABULARY))


def test_rows_of_several_works_go_to_their_owners():
    """A chunk that only scores, a chunk that does nothing, a prompt's end that scores and samples, a plain decoder."""
    scoring = {"temperature": 0, "prompt_logprobs": 2}
    begun, ending = request([4, 5, 6, 7, 8], **scoring), request([9, 8, 7], **scoring)
    works = [
        Work(begun, 1, 3, samples=False, scored=2),
        Work(request([1] * 9, temperature=0), 0, 5, samples=False),
        Work(ending, 0, 3, samples=True, scored=2),
        work(request(temperature=0)),
    ]
    assert [list(one.rows) for one in works] == [[1, 2], [], [0, 1, 2], [2]]
    rows = logits(6)
    choice = choose(rows, works)
    first, second, third = choice.read()
    assert first.token_id == -1
    assert [one.token_id for one in first.prompt_logprobs] == [6, 7]
    assert [one.token_id for one in second.prompt_logprobs] == [8, 7]
    scored = [*first.prompt_logprobs, *second.prompt_logprobs]
    for row, one in zip((0, 1, 2, 3), scored, strict=True):
        assert one.logprob == pytest.approx(reference_logprobs(rows[row], one.token_id)[0], abs=1e-5)
        assert one.top_ids == best(rows[row], 2)
    assert [second.token_id, third.token_id] == choice.tokens.tolist() == [rows[4].argmax(), rows[5].argmax()]
    assert third.prompt_logprobs == ()


def test_a_prompt_position_that_is_not_finite_fails_its_request():
    rows = logits(3)
    rows[0, 5] = float("nan")
    one = request([4, 5, 6], temperature=0, prompt_logprobs=0)
    [found] = choose(rows, [Work(one, 0, 3, samples=True, scored=2)]).read()
    assert "not finite" in found.error


def test_no_work_with_rows_is_no_sample():
    chunk = Work(request([1] * 9), 0, 5, samples=False)
    choice = choose(logits(0), [chunk])
    assert (choice.read(), choice.tokens.tolist()) == ([], [])
