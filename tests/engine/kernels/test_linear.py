"""Packed weights give what a plain matrix product gives, for every number of rows and columns left over."""

import numpy as np
import pytest
import torch

from pagoda_engine.kernels.cpu.linear import elements, linear, pack, packed_size
from pagoda_engine.kernels.cpu.work import shared

SHAPES = [(1, 64, 96), (2, 64, 33), (3, 96, 48), (7, 64, 211), (70, 32, 130)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "depth", "outputs"), [(1, 64, 96), (2, 64, 33), (3, 96, 48), (7, 64, 211), (70, 32, 130)]
)
@pytest.mark.parametrize("add", [False, True])
def test_a_product_equals_the_plain_one(dtype, tokens, depth, outputs, add):
    generator = torch.Generator().manual_seed(tokens)
    x = torch.zeros(tokens + 8, depth + 32, dtype=dtype)
    x[:tokens, :depth] = torch.randn(tokens, depth, generator=generator)
    weight, bias = torch.randn(outputs, depth, generator=generator).to(dtype), torch.randn(outputs, generator=generator)
    packed = np.empty(packed_size(outputs, depth), elements(weight).dtype)
    pack(weight, packed)
    y = torch.randn(tokens + 8, outputs + 32, generator=generator)
    wanted = x[:tokens, :depth].float() @ weight.float().T + bias + (y[:tokens, :outputs] if add else 0)
    linear(
        shared(1), 0, elements(x), depth + 32, tokens, packed, 0, depth, outputs, bias.numpy(), 0, add, elements(y),
        outputs + 32,
    )  # fmt: skip
    torch.testing.assert_close(y[:tokens, :outputs], wanted, rtol=1e-5, atol=1e-4)
