"""Tokens are drawn from the distributions that the parameters describe, and from nothing else."""

import itertools
import math
import random

import pytest
import torch

from pagoda_engine.core.engine import Sample
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.sampler import choose, probabilities, uniform
from pagoda_engine.sampling_params import SamplingParams

VOCABULARY = 50


def request(prompt=(1, 2, 3), seed=0, eos=(), **params) -> Request:
    made = Request("r", list(prompt), SamplingParams(**params), frozenset(eos), 0.0)
    made.seed = seed
    return made


def sample(rows: torch.Tensor, requests: list[Request]) -> list[Sample]:
    return choose(rows, [Work(one, 0, len(one.tokens), samples=True) for one in requests]).read()


def logits(rows=1, seed=0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def reference(row: torch.Tensor, params: SamplingParams) -> list[float]:
    """The same in plain Python, one token after the other: temperature, top-k, top-p, min-p."""
    peak = max(row.tolist())
    weights = [math.exp((value - peak) / params.temperature) for value in row.tolist()]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    kept = order[: params.top_k or len(order)]
    total, reached, nucleus = sum(weights[token] for token in kept), 0.0, []
    for token in kept:
        nucleus.append(token)
        reached += weights[token] / total
        if reached >= params.top_p:
            break
    floor = params.min_p * weights[order[0]]
    nucleus = [token for token in nucleus if weights[token] >= floor]
    total = sum(weights[token] for token in nucleus)
    return [weights[token] / total if token in nucleus else 0.0 for token in range(len(weights))]


GRID = [
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for temperature in (0.3, 1.0, 2.5)
    for top_k in (0, 1, 7, 500)
    for top_p in (0.2, 0.9, 1.0)
    for min_p in (0.0, 0.1)
]


def test_every_mix_of_filters_gives_the_reference_distribution_in_one_batch():
    rows = logits(len(GRID))
    batch = [request() for _ in GRID]
    for made, params in zip(batch, GRID, strict=True):
        made.params = params
    found = probabilities(rows, batch)
    found = found / found.sum(dim=-1, keepdim=True)
    for row, params in enumerate(GRID):
        torch.testing.assert_close(found[row], torch.tensor(reference(rows[row], params)), msg=str(params))


def test_drawn_tokens_are_distributed_as_they_should_be():
    """Chi-squared over 20,000 seeds; the limit is exceeded by chance once in a million."""
    count, row = 20_000, logits()
    batch = [request(seed=seed, temperature=1.0, top_k=10) for seed in range(count)]
    drawn = [one.token_id for one in sample(row.expand(count, -1), batch)]
    expected = reference(row[0], batch[0].params)
    kept = [token for token in range(VOCABULARY) if expected[token] > 0]
    assert set(drawn) <= set(kept)
    squares = sum((drawn.count(token) - count * expected[token]) ** 2 / (count * expected[token]) for token in kept)
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


def test_a_token_depends_on_seed_and_position_and_not_on_the_batch():
    rows = logits(30)
    dice = random.Random(1)
    batch = [request(range(row + 1), seed=row, temperature=1.0, top_p=dice.choice([0.7, 1.0])) for row in range(30)]
    together = [one.token_id for one in sample(rows, batch)]
    assert [sample(rows[row : row + 1], [batch[row]])[0].token_id for row in range(30)] == together
    others = [sample(rows[:1], [request(range(length), temperature=1.0)])[0].token_id for length in range(1, 60)]
    assert len(set(others)) > 5, "each position must have a number of its own"


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_fails_alone(poison, temperature):
    rows = logits(3)
    clean = sample(rows, [request(temperature=temperature) for _ in range(3)])
    rows[1, 17] = poison
    found = sample(rows, [request(temperature=temperature) for _ in range(3)])
    assert [found[0], found[2]] == [clean[0], clean[2]]
    assert found[1].error is not None
    assert "not finite" in found[1].error


def test_the_smallest_temperature_is_greedy_and_makes_no_infinity():
    rows = logits(1)
    assert sample(rows, [request(temperature=5e-324)])[0].token_id == rows[0].argmax().item()
    assert sample(rows * 1e30, [request(temperature=1e-300)])[0].token_id == rows[0].argmax().item()


def test_tokens_that_end_a_request_are_impossible_before_min_tokens():
    rows = logits(1)
    best, second = rows[0].topk(2).indices.tolist()
    assert sample(rows, [request(temperature=0, eos=[best])])[0].token_id == best
    assert sample(rows, [request(temperature=0, eos=[best], min_tokens=1)])[0].token_id == second
    late = request(temperature=0, eos=[best], min_tokens=1)
    late.tokens.append(9)
    assert sample(rows, [late])[0].token_id == best
    assert sample(rows, [request(temperature=0, stop_token_ids=(best, 10**6), min_tokens=1)])[0].token_id == second
    assert rows[0].argmax().item() == best, "the caller's logits must stay as they were"
