"""ModelFacts of a GGUF file: its metadata keys, and tensors counted as they will be on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pagoda_engine.contract import ModelFacts
from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.source.gguf import Array, Header

# transformers' class by GGUF's architecture, where the one does not follow from the other by capitals alone.
_ARCHITECTURES: Final[Mapping[str, str]] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "gpt-oss": "GptOssForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "nemotron": "NemotronForCausalLM",
}
# Tables that llama.cpp reads and a model computes: no weights.
_TABLES: Final = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_BYTES: Final = 2  # of a bfloat16, to which the weights are dequantised


def gguf_facts(model: str, header: Header, download_bytes: int) -> ModelFacts:
    """Facts from a header. A file without `output.weight` ties it to the embedding, which then counts once.

    Raises ModelCorrupt naming the metadata key that is missing or of the wrong kind.
    """
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ModelCorrupt(f"{model}: the GGUF header has no general.architecture")
    heads = _number(model, header, f"{name}.attention.head_count")
    hidden = _number(model, header, f"{name}.embedding_length")
    parameters = sum(tensor.elements for tensor in header.tensors if tensor.name not in _TABLES)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return ModelFacts(
        architecture=_ARCHITECTURES.get(name, name),
        dtype="bfloat16",
        weight_bytes=parameters * _BYTES,
        download_bytes=download_bytes,
        num_layers=_number(model, header, f"{name}.block_count"),
        num_attention_heads=heads,
        num_kv_heads=_number(model, header, f"{name}.attention.head_count_kv", heads),
        head_dim=_number(model, header, f"{name}.attention.key_length", hidden // heads),
        hidden_size=hidden,
        vocab_size=_number(model, header, f"{name}.vocab_size", tokens.length if isinstance(tokens, Array) else None),
        max_model_len=_number(model, header, f"{name}.context_length"),
        parameters=parameters,
    )


def _number(model: str, header: Header, key: str, default: int | None = None) -> int:
    """A whole number above 0. Families with one number a layer (head counts, say) give the largest."""
    value = header.metadata.get(key, default)
    numbers = value.numbers if isinstance(value, Array) else (value,)
    whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool) and number > 0]
    if not whole:
        raise ModelCorrupt(f"{model}: the GGUF header has {key} = {value!r}; it must be a whole number above 0")
    return max(whole)
