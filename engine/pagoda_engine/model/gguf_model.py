"""GGUF files of the common decoder shape, read directly: one pass over the file, one tensor in memory at a time.

transformers reads any GGUF that it knows, but parses the whole vocabulary string by string each time, which takes
longer than all the rest of a small model's start. For the architectures below the config comes from the few numbers of
the header, and tensors go from the mapped file into the model one by one. Whatever this module is not sure of it leaves
to transformers: `read_config` returns None then.

Names: llama.cpp's gguf-py/gguf/constants.py. The permutation of query and key rows: its convert_hf_to_gguf.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.source import gguf

_CONFIGS: Final[Mapping[str, type[PreTrainedConfig]]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}

# Numbers that a config needs, without the architecture's prefix. A header without one of them is not for us.
_NUMBERS: Final = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_TOKENS: Final = {
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
}
# Keys that these architectures may also have, and that are read elsewhere or say what the shapes say.
_ALSO_KNOWN: Final = (
    "rope.freq_base",
    "rope.dimension_count",
    "vocab_size",
    "attention.key_length",
    "attention.value_length",
    "tensor_data_layout",
)

_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAME: Final = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TOP_NAME: Final = re.compile(r"(\w+)\.(weight|bias)")


def read_config(header: gguf.Header) -> PreTrainedConfig | None:
    """The config of a file that `load_weights` can read, equal to what transformers would make; else None."""
    architecture = header.metadata.get("general.architecture")
    known = _CONFIGS.get(str(architecture))
    if known is None or "mistral" in str(header.metadata.get("general.name", "")).lower():
        return None  # a Mistral calls itself llama
    prefix = f"{architecture}."
    own = {key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)}
    surprises = set(own).difference(_NUMBERS, _ALSO_KNOWN)
    if surprises or not set(_NUMBERS) <= set(own) or not all(isinstance(own[key], int | float) for key in _NUMBERS):
        return None  # scaled rotary embeddings, experts, numbers that differ by layer
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    if not {"token_embd.weight", "blk.0.attn_q.weight"} <= set(shapes) or None in map(parameter_name, shapes):
        return None
    options: dict[str, Any] = {name: own[key] for key, name in _NUMBERS.items()}
    options |= {name: header.metadata[key] for key, name in _TOKENS.items() if key in header.metadata}
    options["vocab_size"] = shapes["token_embd.weight"][-1]
    options["tie_word_embeddings"] = "output.weight" not in shapes
    if architecture != "qwen2":
        options["head_dim"] = shapes["blk.0.attn_q.weight"][-1] // options["num_attention_heads"]
    options["rope_parameters"] = {"rope_type": "default", "rope_theta": own.get("rope.freq_base", 10000.0)}
    return known(**options)


def understands(config: PreTrainedConfig) -> bool:
    """Whether a config is of a kind that `read_config` makes."""
    return type(config) in _CONFIGS.values()


def load_weights(model: nn.Module, path: Path, header: gguf.Header, on_percent: Callable[[float], None]) -> None:
    """Fill a model's parameters from the file, dequantised to their own dtype, on their own device.

    Raises ModelCorrupt naming the tensor that has the wrong shape, is not known to the model, or is missing.
    """
    parameters = dict(model.named_parameters())
    data = np.memmap(path, mode="r", dtype=np.uint8)
    unpermuted = header.metadata["general.architecture"] == "llama"
    total, done = sum(tensor.bytes or 0 for tensor in header.tensors), 0
    for tensor in header.tensors:
        name = parameter_name(tensor.name)
        parameter = parameters.pop(name, None) if name else None
        if parameter is None:
            raise ModelCorrupt(f"{path} has a tensor {tensor.name!r} that its architecture has no place for")
        if tuple(parameter.shape) != tensor.shape[::-1]:
            raise ModelCorrupt(
                f"{path}: tensor {tensor.name!r} has the shape {tensor.shape[::-1]} and should have "
                f"{tuple(parameter.shape)}"
            )
        values = _values(data, header.data_start, tensor, path)
        if unpermuted and re.search(r"attn_[qk]\.", tensor.name):
            values = _interleaved_to_halves(values, model.config, tensor.name)
        parameter.data.copy_(values)
        done += tensor.bytes or 0
        on_percent(100 * done / total)
    if parameters:
        raise ModelCorrupt(f"{path} lacks the tensors of {', '.join(sorted(parameters)[:3])}; fetch it again")


def parameter_name(tensor_name: str) -> str | None:
    """transformers' name for a GGUF tensor, or None for one that the common decoder shape does not have."""
    if match := _LAYER_NAME.fullmatch(tensor_name):
        layer, part, kind = match.groups()
        return f"model.layers.{layer}.{_LAYER[part]}.{kind}" if part in _LAYER else None
    if match := _TOP_NAME.fullmatch(tensor_name):
        part, kind = match.groups()
        return f"{_TOP[part]}.{kind}" if part in _TOP else None
    return None


def _values(data: np.memmap[Any, Any], data_start: int, tensor: gguf.Tensor, path: Path) -> Tensor:
    if tensor.bytes is None:
        raise ModelCorrupt(f"{path}: tensor {tensor.name!r} has the unknown type {tensor.kind}")
    start = data_start + tensor.offset
    rows = data[start : start + tensor.bytes].reshape(*tensor.shape[:0:-1], -1)
    kind = GGMLQuantizationType(tensor.kind)
    if kind is GGMLQuantizationType.F32:
        return torch.from_numpy(np.array(rows).view(np.float32))
    return torch.from_numpy(dequantize(np.asarray(rows), kind).reshape(tensor.shape[::-1]))


def _interleaved_to_halves(values: Tensor, config: PreTrainedConfig, name: str) -> Tensor:
    """Undo llama.cpp's order of rows: its rotary pairs are neighbours, transformers' are half a head apart."""
    heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.transpose(1, 2).reshape(values.shape)
