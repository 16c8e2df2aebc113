"""Kernels that work row by row equal their plain twins, and say where a number is none."""

import numpy as np
import pytest
import torch

from pagoda_engine.kernels import plain
from pagoda_engine.kernels.cpu.greedy import greedy
from pagoda_engine.kernels.cpu.linear import elements
from pagoda_engine.kernels.cpu.norm import rms_norm
from pagoda_engine.kernels.cpu.rotary import prepare_head
from pagoda_engine.kernels.cpu.swiglu import swiglu
from pagoda_engine.kernels.cpu.work import shared

# A number is rounded to bfloat16 once, by at most 2^-8 of it.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8 + 1e-5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [8, 64, 570])
def test_a_norm_equals_the_plain_one_for_the_rows_asked_for(dtype, size):
    x, weight = torch.randn(6, size + 3), torch.randn(size)
    rows, y = np.array([4, 0, 5, 1, 1]), torch.zeros(5, size, dtype=dtype)
    rms_norm(
        shared(1), 0, elements(x), size + 3, rows, 5, size, weight.numpy(), 0, np.float32(1e-5),
        np.zeros(size, np.float32), 0, elements(y), size,
    )  # fmt: skip
    wanted = plain.rms_norm(x[rows, :size], weight, 1e-5)
    torch.testing.assert_close(y.float(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_equals_the_plain_one_up_to_the_largest_numbers(dtype):
    gate, up = torch.linspace(-200, 200, 2 * 300).view(2, 300), torch.randn(2, 300)
    x, y = torch.cat((gate, up), dim=1), torch.zeros(2, 300, dtype=dtype)
    swiglu(shared(1), 0, elements(x), 600, 2, 300, np.zeros(512, np.float32), 0, elements(y), 300)
    torch.testing.assert_close(y.float(), plain.swiglu(gate, up), rtol=TOLERANCE[dtype], atol=1e-6)


@pytest.mark.parametrize("half", [0, 8, 24])
def test_a_head_is_normalised_and_turned_in_place_as_far_as_asked(half):
    head, weight, angle = torch.randn(48), torch.randn(48), torch.randn(max(half, 1))
    wanted = plain.rms_norm(head, weight, 1e-6)[None, None]
    wanted = plain.rotate(wanted, angle.cos()[None, :half], angle.sin()[None, :half]).flatten()
    x = head.clone()
    prepare_head(
        elements(x), 0, 48, weight.numpy(), 0, np.float32(1e-6), angle.cos().numpy(), angle.sin().numpy(), 0, half
    )
    torch.testing.assert_close(x, wanted, rtol=1e-5, atol=1e-5)


def test_the_likeliest_token_is_the_first_of_equals_and_a_nan_is_told():
    logits = torch.randn(4, 128)
    logits[0, [77, 40]] = 9.0
    logits[1, 99] = 9.0
    logits[2, 3] = float("nan")
    logits[3] = float("-inf")
    logits[:, 100:] = 50.0  # beyond the vocabulary
    best, values = np.zeros(4, np.int64), np.zeros(4, np.float32)
    greedy(shared(1), 0, elements(logits), 128, 4, 100, best, values)
    assert best.tolist()[:3] == [40, 99, -1]
    assert values[0] == 9.0
    assert not np.isfinite(values[2:]).any()
