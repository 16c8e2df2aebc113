"""The cache's tensors."""

import psutil
import pytest
import torch

from pagoda_engine.model.kv_cache import LayerShape, allocate

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_blocks_are_zero_and_have_their_layers_shape(dtype):
    (layer,) = allocate((LayerShape(3, 8, 16, dtype),), 5, 4, CPU)
    assert layer.keys.shape == (5, 4, 3, 8)
    assert layer.values.shape == (5, 4, 3, 16)
    assert layer.keys.dtype == layer.values.dtype == dtype
    assert not layer.keys.float().any()
    assert not layer.values.float().any()


def test_a_cache_costs_no_memory_on_a_cpu_before_it_is_written():
    """A gibibyte of blocks, of which one is used."""
    before = psutil.Process().memory_info().rss
    (layer,) = allocate((LayerShape(8, 128, 128, torch.float32),), 2**13, 16, CPU)
    layer.keys[5] = 1
    assert layer.keys.nbytes + layer.values.nbytes == 2**30
    assert psutil.Process().memory_info().rss - before < 2**26
