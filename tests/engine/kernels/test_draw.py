"""Tokens are drawn as the plain twin draws them, whatever filters stand in the rows beside."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from pagoda_engine.kernels import plain
from pagoda_engine.kernels.cpu.draw import Draws, draw
from pagoda_engine.kernels.cpu.team import Team

TEMPERATURES, TOP_KS, TOP_PS, MIN_PS = (0.3, 1.0, 2.5), (0, 1, 7, 300), (1.0, 0.95, 0.3, 1e-6), (0.0, 0.05, 1.0)
CHOICES = list(itertools.product(TEMPERATURES, TOP_KS, TOP_PS, MIN_PS))


@pytest.fixture(scope="module")
def team():
    team = Team(2, 1)
    yield team
    team.close()


def found(team, logits: torch.Tensor, choices, uniforms, *, stride: int | None = None) -> list[int]:
    """By two threads, each with weights of its own; what stands behind a row must not matter."""
    count, vocabulary = logits.shape
    stride = stride or vocabulary + 5
    rows = torch.full((count, stride), 99.0)
    rows[:, :vocabulary] = logits
    order = np.random.default_rng(0).permutation(count)
    temperatures, top_ks, top_ps, min_ps = (np.array(values) for values in zip(*choices, strict=True))
    draws = Draws(
        order,
        temperatures[order].astype(np.float32),
        top_ks[order],
        top_ps[order],
        min_ps[order].astype(np.float32),
        np.array(uniforms)[order],
    )
    flat, peaks = rows.numpy().reshape(-1), logits.amax(1).numpy()
    tokens, weights = np.full(count, -7), np.zeros(2 * stride, np.float32)

    def job(thread, words):
        draw(words, 0, draws, flat, stride, vocabulary, peaks, weights, thread * stride, tokens)

    team.run(job)
    return tokens[np.argsort(order)].tolist()


def wanted(logits, choices, uniforms) -> list[int]:
    return [
        plain.sample(row, temperature, top_k, top_p, float(np.float32(min_p)), uniform)
        for row, (temperature, top_k, top_p, min_p), uniform in zip(logits, choices, uniforms, strict=True)
    ]


@pytest.mark.parametrize("kind", ["distinct", "equals"])
def test_every_mix_of_filters_gives_the_twins_token(team, kind):
    """Among few different logits thresholds fall between equals."""
    dice = random.Random(1)
    logits = torch.randn(len(CHOICES), 251, generator=torch.Generator().manual_seed(0)) * 3
    if kind == "equals":
        logits = (logits / 2).round() * 2
    uniforms = [dice.random() for _ in CHOICES]
    want = wanted(logits, CHOICES, uniforms)
    assert len(set(want)) > len(want) / 3, "the rows must tell their tokens apart"
    assert found(team, logits, CHOICES, uniforms) == want


def test_the_whole_vocabulary_is_in_reach(team):
    """The first token at 0, the last one just below 1, and those in between in their order."""
    count, vocabulary = 9, 49157
    uniforms = [step / 8 for step in range(8)] + [1 - 2**-52]
    tokens = found(team, torch.zeros(count, vocabulary), [(1.0, 0, 1.0, 0.0)] * count, uniforms)
    assert tokens == [min(math.floor(uniform * vocabulary), vocabulary - 1) for uniform in uniforms]


def test_drawn_tokens_are_distributed_as_they_should_be(team):
    """Chi-squared over 20,000 draws; the limit is exceeded by chance once in a million."""
    count = 20_000
    row = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 2
    dice = random.Random(0)
    tokens = found(team, row.expand(count, -1), [(0.8, 10, 1.0, 0.0)] * count, [dice.random() for _ in range(count)])
    best = row.topk(10)
    expected = dict(zip(best.indices.tolist(), ((best.values / 0.8).softmax(0) * count).tolist(), strict=True))
    assert set(tokens) <= set(expected)
    assert sum((tokens.count(token) - share) ** 2 / share for token, share in expected.items()) < 45.1


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-6])
def test_the_smallest_temperature_is_greedy(team, temperature):
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(2))
    logits[1] *= 1e20
    tokens = found(team, logits, [(temperature, 0, 1.0, 0.0)] * 3, [0.0, 0.5, 1 - 2**-52])
    assert tokens == logits.argmax(1).tolist()


def test_impossible_tokens_never_come(team):
    logits = torch.full((4, 64), -torch.inf)
    logits[:, 40] = logits[:, 50] = 3.0
    assert found(team, logits, [(1.0, 0, 1.0, 0.0), (9.0, 3, 0.9, 0.0)] * 2, [0.0, 0.0, 0.99, 0.99]) == [40, 40, 50, 50]
