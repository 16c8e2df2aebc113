"""`--kv-cache-dtype fp8` stores keys and values in half of bfloat16's bytes, and about as they are."""

import pytest
import torch

from pagoda_engine.model.attention import AttentionOptions, LayerCache, Layout
from pagoda_engine.model.kv_cache import LayerShape, allocate, stored_as
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.sampling_params import SamplingParams


@pytest.mark.parametrize("name", ["fp8", "fp8_e4m3"])
def test_the_same_bytes_hold_twice_the_tokens_and_the_engine_generates(tiny_model, build, generate, name):
    model, size = tiny_model("llama"), {"kv_cache_memory_bytes": 100_000, "max_num_seqs": 64, "max_model_len": 256}
    engine = build(model, dtype="bfloat16", kv_cache_dtype=name, **size)
    assert engine.info.num_blocks // 2 == build(model, dtype="bfloat16", **size).info.num_blocks
    texts = generate(engine, [[5, 6, 7], [9] * 40], SamplingParams(temperature=0, max_tokens=12, ignore_eos=True))
    assert [len(text) for text in texts] == [12, 12]


def test_attention_over_float8_is_near_that_over_the_numbers_themselves():
    torch.manual_seed(0)
    shape = LayerShape(2, 32, 32, torch.float32)
    cpu = torch.device("cpu")
    (exact,), (small,) = (allocate(stored_as((shape,), name, cpu), 8, 16, cpu) for name in ("auto", "fp8"))
    layout = Layout((0, 70), (70,), torch.arange(70), (tuple(range(8)),), 16)
    keys, values, queries = torch.randn(70, 2, 32), torch.randn(70, 2, 32), torch.randn(70, 4, 32)
    kernels = TorchAttention(layout)
    outputs = []
    for layer in (exact, small):
        kernels.write_kv(layer, keys, values)
        outputs.append(kernels.paged_attention(layer, queries, AttentionOptions(32**-0.5)))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0.1, atol=0.1)


def test_a_heads_scale_is_multiplied_with_what_is_stored():
    scale = torch.tensor([2.0, 0.5])
    parts = (torch.zeros(1, 4, 2, 8).to(torch.float8_e4m3fn) for _ in range(2))
    layer = LayerCache(*parts, key_scale=scale, value_scale=scale)
    kernels = TorchAttention(Layout((0, 1), (1,), torch.tensor([0]), ((0,),), 4))
    values = torch.full((1, 2, 8), 3.0)
    kernels.write_kv(layer, values, values)
    assert layer.values[0, 0, :, 0].float().tolist() == [1.5, 6.0]
    assert torch.equal(kernels.paged_attention(layer, values, AttentionOptions(1.0)), values)
