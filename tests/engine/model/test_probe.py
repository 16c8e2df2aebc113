"""Whatever lets one token of a row change another, but for attention, is found before requests share a row."""

import pytest
import torch
from tests.engine.model import tiny

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model import attention
from pagoda_engine.model.kv_cache import LayerShape
from pagoda_engine.model.probe import probe


@pytest.fixture
def llama():
    attention.register()
    model = tiny.model(tiny.config("llama"))
    model.set_attn_implementation(attention.IMPLEMENTATION)
    return model


def test_an_honest_model_tells_what_it_stores(llama):
    assert probe(llama, 256) == (LayerShape(kv_heads=2, key_dim=16, value_dim=16, dtype=torch.float32),) * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "mix",
    [
        lambda hidden: hidden + 0.5 * hidden.roll(1, dims=1),  # a convolution over neighbours
        lambda hidden: hidden + 0.1 * torch.arange(hidden.shape[1])[:, None],  # positions counted from the row's start
        lambda hidden: hidden / hidden.mean(),  # a statistic of the whole batch
    ],
    ids=["neighbours", "place in the row", "batch"],
)
def test_a_model_that_mixes_tokens_is_refused(llama, mix, dtype):
    llama = llama.to(dtype)
    llama.model.layers[0].register_forward_hook(lambda module, args, output: mix(output).to(dtype))
    with pytest.raises(ModelUnsupported, match="LlamaForCausalLM lets a token change others by more than attention"):
        probe(llama, 256)


def test_frequencies_that_follow_the_longest_text_are_found(llama):
    """Those of `rotary.py`, if it had not settled them."""
    rotary = llama.model.rotary_emb
    forward = rotary.forward
    rotary.forward = lambda x, position_ids: forward(x, position_ids * (1 if position_ids.max() < 64 else 0.5))
    with pytest.raises(ModelUnsupported, match="lets a token change others"):
        probe(llama, 256)
    probe(llama, 64)


def test_a_layer_without_attention_is_named(llama):
    del llama.model.layers[1]
    with pytest.raises(ModelUnsupported, match=r"of LlamaForCausalLM's 2 layers, 1 use softmax attention .*\[1\]"):
        probe(llama, 256)
