"""ModelFacts of a checkpoint in the Hugging Face layout: config.json and the headers of its safetensors files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pagoda_engine.contract import ModelFacts
from pagoda_engine.errors import ModelCorrupt, ModelUnsupported
from pagoda_engine.source.safetensors import TORCH_NAMES, Tensor

# The text model's config of multimodal ones, and the names that older families gave their dimensions.
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")


def config_facts(model: str, config: bytes, tensors: Sequence[Tensor], download_bytes: int) -> ModelFacts:
    """Facts from a config's bytes and all tensors of the checkpoint.

    `weight_bytes` counts the tensors as they are stored, quantised ones too, and a tied output embedding once, even
    where the file holds it twice. `parameters` counts stored elements. Raises ModelCorrupt and ModelUnsupported.
    """
    try:
        document = json.loads(config)
    except ValueError as error:
        raise ModelCorrupt(f"{model}: config.json is damaged: {error}") from None
    if not isinstance(document, dict):
        raise ModelCorrupt(f"{model}: config.json is no JSON object")
    text = _text_config(document)
    tied = document.get("tie_word_embeddings", text.get("tie_word_embeddings", False)) is True
    counted = [tensor for tensor in tensors if not (tied and tensor.name.endswith("lm_head.weight"))]
    heads = _number(model, text, _HEADS)
    hidden = _number(model, text, _HIDDEN)
    kv_heads = 1 if text.get("multi_query") is True else _number(model, text, _KV_HEADS, heads)
    architectures = document.get("architectures") or [document.get("model_type", "unknown")]
    return ModelFacts(
        architecture=str(architectures[0]),
        dtype=_dtype(document, text, counted),
        weight_bytes=sum(tensor.bytes for tensor in counted),
        download_bytes=download_bytes,
        num_layers=_number(model, text, _LAYERS),
        num_attention_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_number(model, text, ("head_dim", "attention_head_dim"), hidden // heads),
        hidden_size=hidden,
        vocab_size=_number(model, text, ("vocab_size",)),
        max_model_len=_number(model, text, _POSITIONS),
        parameters=sum(tensor.elements for tensor in counted),
    )


def _text_config(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the part that makes text; an omni model's is two levels down."""
    for name in _TEXT_CONFIGS:
        inner = document.get(name)
        if isinstance(inner, dict) and inner:
            return _text_config(inner)
    return document


def _number(model: str, config: Mapping[str, Any], names: Sequence[str], default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelUnsupported(f"{model}: config.json has {name} = {value!r}; it must be a whole number above 0")
        return value
    if default is None:
        raise ModelUnsupported(f"{model}: config.json has no {names[0]}; only decoder language models are supported")
    return default


def _dtype(document: Mapping[str, Any], text: Mapping[str, Any], tensors: Sequence[Tensor]) -> str:
    """The config's word (`dtype`, or `torch_dtype` before transformers 5), else that of most of the stored bytes."""
    for config in (text, document):
        for name in ("dtype", "torch_dtype"):
            if isinstance(value := config.get(name), str):
                return value.removeprefix("torch.")
    by_dtype: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in TORCH_NAMES:
            by_dtype[tensor.dtype] += tensor.bytes
    return TORCH_NAMES[by_dtype.most_common(1)[0][0]] if by_dtype else "bfloat16"
