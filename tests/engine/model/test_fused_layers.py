"""Layers of the common shape are recognised by what they compute; all others are left to transformers."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, LlamaConfig, Olmo2Config, SmolLM3Config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from pagoda_engine.model import attention
from pagoda_engine.model.fused.recognise import NotRecognised, recognise

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 211,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
COMMON = [
    "llama",
    "llama-tied",
    "llama-biased",
    "llama3-rope",
    "mistral",
    "mistral-window",
    "qwen2",
    "qwen2-window",
    "qwen3",
]


@pytest.fixture(autouse=True)
def _our_attention():
    attention.register()


def made(config):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config._attn_implementation = attention.IMPLEMENTATION
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", COMMON)
def test_a_family_of_the_common_shape_is_recognised(tiny_model, family, dtype):
    path, kind = tiny_model(family), attention.IMPLEMENTATION
    decoder = recognise(AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=kind).eval(), 256)
    assert len(decoder.layers) == 3
    assert decoder.tied == (family == "llama-tied")
    assert all(layer.rotated for layer in decoder.layers)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GraniteConfig(**SMALL, residual_multiplier=0.22), "GraniteDecoderLayer computes something else"),
        (GraniteConfig(**SMALL, embedding_multiplier=12.0), "changes embeddings"),
        (GraniteConfig(**SMALL, logits_scaling=8.0), "last layer's output"),
        (LlamaConfig(**SMALL, hidden_act="gelu"), "LlamaDecoderLayer computes something else"),
        (Gemma2Config(**SMALL, attn_logit_softcapping=None), "Gemma2DecoderLayer is made of other parts"),
        (Olmo2Config(**SMALL), "Olmo2DecoderLayer"),
    ],
)
def test_what_only_looks_like_the_common_shape_is_not_taken_for_it(config, reason):
    with pytest.raises(NotRecognised, match=reason):
        recognise(made(config), 256)


def test_a_layer_without_rotary_embedding_is_recognised_as_such():
    config = SmolLM3Config(**SMALL, no_rope_layers=[1, 0], use_sliding_window=False)
    decoder = recognise(made(config), 256)
    assert [layer.rotated for layer in decoder.layers] == [True, False]
