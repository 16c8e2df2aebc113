"""A decode plan covers every visible token once, in shares that are nearly even, and leaves the rest empty."""

import random

import pytest
import torch

from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.kernels.triton.decode_plan import DecodePlan

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def numbers(values):
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def items(plan):
    """(sequence, first, end, first item, items) of each item, in order."""
    return [tuple(item) for item in plan.items.T.tolist() if item[0] >= 0]


@pytest.mark.parametrize("window", [None, 1, 1000])
@pytest.mark.parametrize("seed", range(6))
def test_every_visible_token_is_in_one_item(seed, window):
    dice = random.Random(seed)
    contexts = [dice.choice([0, 1, 127, 128, 129, dice.randrange(5000)]) for _ in range(dice.choice([1, 5, 130, 300]))]
    plan = DecodePlan.allocate(400, dice.choice([1, 2, 8]), Chip(dice.choice([2, 132])), DEVICE)
    plan.fill(numbers(contexts), window=window)
    found = items(plan)
    assert [item[0] for item in found] == sorted(item[0] for item in found)
    for sequence, context in enumerate(contexts):
        own = [(index, *item) for index, item in enumerate(found) if item[0] == sequence]
        low = 0 if window is None else max(0, context - window)
        assert [token for _, _, a, b, _, _ in own for token in range(a, b)] == list(range(low, context))
        assert {(first, count) for *_, first, count in own} == {(own[0][0], len(own))}


def test_one_long_sequence_among_short_ones_is_cut_and_they_are_not():
    plan = DecodePlan.allocate(8, 8, Chip(132), DEVICE)
    plan.fill(numbers([100, 100, 100_000, 100]))
    counts = {sequence: count for sequence, *_, count in items(plan)}
    assert counts[0] == counts[1] == counts[3] == 1
    assert counts[2] > 60


def test_sequences_with_several_queries_or_none_get_no_item():
    plan = DecodePlan.allocate(4, 1, Chip(2), DEVICE)
    plan.fill(numbers([5, 7, 9, 0]), starts=numbers([0, 1, 4, 5, 5]))
    assert [item[0] for item in items(plan)] == [0, 2]


def test_a_plan_made_for_more_sequences_is_filled_anew():
    plan = DecodePlan.allocate(64, 1, Chip(2), DEVICE)
    plan.fill(numbers([9] * 64))
    plan.fill(numbers([4]))
    assert items(plan) == [(0, 0, 4, 0, 1)]
