"""Temperature and filters give the distributions of their definitions, and those of transformers' own warpers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pagoda_engine.model.logits.distribution import draw, probabilities
from pagoda_engine.sampling_params import SamplingParams

GRID = [
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for temperature in (0.3, 1.0, 2.5)
    for top_k in (0, 1, 7, 500)
    for top_p in (0.2, 0.9, 1.0)
    for min_p in (0.0, 0.1)
]


def reference(row: list[float], params: SamplingParams) -> list[float]:
    """The same in plain Python, one token after the other; equals stand or fall together."""
    peak = max(row)
    weights = [math.exp((value - peak) / params.temperature) for value in row]
    order = sorted(weights, reverse=True)
    floor = order[min(params.top_k or len(order), len(order)) - 1]
    order = [weight for weight in order if weight >= floor]
    total, reached = sum(order), 0.0
    for weight in order:
        if reached >= params.top_p * total:
            break
        floor = weight
        reached += weight
    floor = max(floor, params.min_p * order[0])
    kept = [weight if weight >= floor else 0.0 for weight in weights]
    return [weight / sum(kept) for weight in kept]


def found(rows: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    weights = probabilities(rows, params)
    return weights / weights.sum(dim=-1, keepdim=True)


def test_every_mix_of_filters_gives_the_reference_distribution_in_one_batch():
    rows = torch.randn(len(GRID), 50, generator=torch.Generator().manual_seed(0)) * 2
    for params, row, weights in zip(GRID, rows, found(rows, GRID), strict=True):
        torch.testing.assert_close(weights, torch.tensor(reference(row.tolist(), params)), msg=str(params))


def warped(row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The distribution that transformers' `generate` draws from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0:
        warpers.append(MinPLogitsWarper(params.min_p))
    return warpers(torch.zeros(1, 1, dtype=torch.int64), row[None])[0].softmax(dim=-1)


@pytest.mark.parametrize("params", GRID, ids=str)
def test_the_distribution_is_the_one_of_transformers(params):
    row = torch.randn(200, generator=torch.Generator().manual_seed(3)) * 3
    torch.testing.assert_close(found(row[None], [params])[0], warped(row, params), rtol=1e-4, atol=1e-6)


# Few distinct values make many ties; -inf is a token that was made impossible before.
VALUES = st.sampled_from([-1e30, -50.0, -1.0, 0.0, 0.5, 1.0, 50.0, -math.inf]) | st.integers(-300, 300).map(
    lambda n: n / 16
)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([1e-3, 0.5, 1.0, 2.0]),
    top_k=st.integers(0, 8),
    top_p=st.sampled_from([1e-6, 0.1, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)


@settings(max_examples=300)
@given(row=st.lists(VALUES, min_size=1, max_size=12), params=PARAMS)
def test_ties_and_extremes_leave_a_distribution_in_which_equals_are_equal(row, params):
    if max(row) == -math.inf:
        row[0] = 0.0
    weights = found(torch.tensor([row]), [params])[0].tolist()
    assert sum(weights) == pytest.approx(1)
    assert weights[row.index(max(row))] == max(weights) > 0, "the likeliest token is never cut off"
    for a, first in zip(row, weights, strict=True):
        for b, second in zip(row, weights, strict=True):
            assert a != b or first == second
            assert a <= b or first >= second
    if params.top_k and params.top_p == 1:
        floor = sorted(row, reverse=True)[min(params.top_k, len(row)) - 1]
        assert all(weight == 0 for value, weight in zip(row, weights, strict=True) if value < floor)


def test_a_draw_inverts_the_distribution():
    """A point lands in a token's share of the total, and a token without a share is never met."""
    weights = torch.tensor([[0.0, 2.0, 0.0, 6.0, 0.0]])
    points = [0.0, 0.2499, 0.25, 0.999999, 1 - 2**-52]
    assert draw(weights.expand(5, -1), points).tolist() == [1, 1, 3, 3, 3]


def test_a_draw_from_nothing_is_a_token_of_the_vocabulary_all_the_same():
    assert 0 <= draw(torch.full((1, 4), float("nan")), [0.5]).item() < 4
