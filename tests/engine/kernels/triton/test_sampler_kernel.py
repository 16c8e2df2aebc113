"""Tokens are chosen as the plain twin chooses them, whatever filters stand in the rows beside."""

import itertools
import random

import pytest
import torch

from pagoda_engine.kernels import plain
from pagoda_engine.kernels.triton import sampler

TEMPERATURES, TOP_KS, TOP_PS, MIN_PS = (0.0, 0.3, 1.0, 2.5), (0, 1, 7, 300), (1.0, 0.95, 0.3, 1e-6), (0.0, 0.05, 1.0)
CHOICES = list(itertools.product(TEMPERATURES, TOP_KS, TOP_PS, MIN_PS))


def sample(logits, choices, uniforms):
    temperature, top_k, top_p, min_p = zip(*choices, strict=True)
    draws = sampler.Draws(
        torch.tensor(temperature),
        torch.tensor(top_k, dtype=torch.int32),
        torch.tensor(top_p),
        torch.tensor(min_p),
        torch.tensor(uniforms, dtype=torch.float64),
    )
    tokens = torch.full((len(logits),), 7)
    sampler.sample(logits, draws, tokens)
    return tokens.tolist()


def wanted(logits, choices, uniforms):
    return [
        plain.sample(row, *(torch.tensor(value).item() for value in choice), uniform)
        for row, choice, uniform in zip(logits, choices, uniforms, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_mix_of_filters_gives_the_twins_token(dtype):
    """In bfloat16 many logits are equal, so that thresholds fall between equals."""
    dice = random.Random(1)
    torch.manual_seed(0)
    logits = (torch.randn(len(CHOICES), 251) * 3).to(dtype)
    uniforms = [dice.random() for _ in CHOICES]
    want = wanted(logits, CHOICES, uniforms)
    assert len(set(want)) > len(want) / 3, "the rows must tell their tokens apart"
    assert sample(logits, CHOICES, uniforms) == want


def test_a_vocabulary_of_several_chunks_is_searched_to_its_ends():
    dice = random.Random(2)
    torch.manual_seed(0)
    choices = [(0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (1.0, 40, 0.9, 0.0), (0.7, 0, 0.8, 0.0), (1.0, 0, 1.0, 0.0)]
    logits = torch.randn(len(choices), 9001)
    logits[0, 9000] = 50
    uniforms = [dice.random() for _ in choices[:-1]] + [1 - 2**-52]
    found = sample(logits, choices, uniforms)
    assert found == wanted(logits, choices, uniforms)
    assert found[0] == 9000
    assert found[-1] > 8900


def test_equal_logits_are_drawn_evenly_and_the_first_is_the_greedy_one():
    logits = torch.zeros(9, 8)
    choices = [(0.0, 0, 1.0, 0.0)] + [(1.0, 1, 0.01, 1.0)] * 8
    uniforms = [0.0] + [(index + 0.5) / 8 for index in range(8)]
    assert sample(logits, choices, uniforms) == [0, *range(8)], "equals are kept together"


def test_rows_without_a_finite_largest_logit_have_no_token_and_spoil_no_other():
    logits = torch.randn(6, 40)
    logits[0, 3] = float("nan")
    logits[1, 39] = float("inf")
    logits[2] = float("-inf")
    logits[3, 1:] = float("-inf")
    logits[4, :39] = float("-inf")
    choices = [
        (1.0, 0, 0.9, 0.0),
        (0.0, 0, 1.0, 0.0),
        (1.0, 3, 1.0, 0.0),
        *[(1.0, 5, 0.9, 0.1)] * 2,
        (0.0, 0, 1.0, 0.0),
    ]
    found = sample(logits, choices, [0.999] * 6)
    assert found == [-1, -1, -1, 0, 39, int(logits[5].argmax())]


def test_temperatures_near_zero_draw_the_likeliest():
    logits = torch.tensor([[1.0, 3.0, 3.0 - 1e-3, -1e30]])
    assert sample(logits, [(1e-38, 0, 0.9, 0.0)], [0.99]) == [1]


def test_both_kernels_compile_for_ampere_and_hopper_without_spilling(compile_job, compile_kernels):
    module, sizes = "pagoda_engine.kernels.triton.sampler", {"VOCABULARY": 128256, "CHUNKS": 32, "CHUNK": 4096}
    partial = {"extremes": "*fp32", "best": "*i32"}
    row = {"temperatures": "*fp32", "top_ks": "*i32", "top_ps": "*fp32", "min_ps": "*fp32", "uniforms": "*fp64"}
    jobs = [
        compile_job(module, "_survey", {"logits": "*bf16", **partial}, sizes, {"num_warps": 4}),
        compile_job(
            module,
            "_choose",
            {"logits": "*bf16", **partial, **row, "tokens": "*i64"},
            {**sizes, "CHUNKS_BLOCK": 32},
            {"num_warps": 8},
        ),
    ]
    assert all(result.spilled == 0 for result in compile_kernels(jobs))
