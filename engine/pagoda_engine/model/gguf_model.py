"""GGUF files of the common decoder shape, read directly, tensor by tensor.

transformers reads any GGUF that it knows, but parses the whole vocabulary string by string each time, which takes
longer than all the rest of a small model's start. For the architectures below the config comes from the few numbers of
the header, and tensors are dequantised from the mapped file in transformers' loading threads. Whatever this module is
not sure of it leaves to transformers: `read_config` returns None then.

Names: llama.cpp's gguf-py/gguf/constants.py. The permutation of query and key rows: its convert_hf_to_gguf.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.model.stored import Stored
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
    """The config of a file whose tensors `stored` can read, equal to what transformers would make; else None."""
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


def stored(config: PreTrainedConfig, path: Path, header: gguf.Header, device: torch.device) -> Iterator[Stored]:
    """The file's tensors by transformers' names, dequantised to float32 as they are read.

    Raises ModelCorrupt naming a tensor whose type is unknown.
    """
    data = np.memmap(path, mode="r", dtype=np.uint8)
    unpermuted = header.metadata["general.architecture"] == "llama"
    for tensor in header.tensors:
        if tensor.bytes is None:
            raise ModelCorrupt(f"{path}: tensor {tensor.name!r} has the unknown type {tensor.kind}")
        start = header.data_start + tensor.offset
        read = _Dequantised(data[start : start + tensor.bytes], tensor, device)
        if unpermuted and re.search(r"attn_[qk]\.", tensor.name):
            read.heads = config.num_attention_heads if "attn_q" in tensor.name else config.num_key_value_heads
        yield Stored(parameter_name(tensor.name) or tensor.name, path, tensor.shape[::-1], torch.float32, read)


def parameter_name(tensor_name: str) -> str | None:
    """transformers' name for a GGUF tensor, or None for one that the common decoder shape does not have."""
    if match := _LAYER_NAME.fullmatch(tensor_name):
        layer, part, kind = match.groups()
        return f"model.layers.{layer}.{_LAYER[part]}.{kind}" if part in _LAYER else None
    if match := _TOP_NAME.fullmatch(tensor_name):
        part, kind = match.groups()
        return f"{_TOP[part]}.{kind}" if part in _TOP else None
    return None


class _Dequantised:
    """Reads a tensor from the mapped file. `heads` is set where its rows are in llama.cpp's order."""

    def __init__(self, data: np.ndarray[Any, Any], tensor: gguf.Tensor, device: torch.device) -> None:
        self.heads: int | None = None
        self._data = data
        self._tensor = tensor
        self._device = device

    def __call__(self, rows: tuple[int, int]) -> Tensor:
        # Imported for such files alone: the others need no package for them.
        from gguf import GGMLQuantizationType, dequantize

        kind, shape = GGMLQuantizationType(self._tensor.kind), self._tensor.shape[::-1]
        packed = self._data.reshape(*shape[:-1], -1)
        if kind is GGMLQuantizationType.F32:
            values = torch.from_numpy(np.array(packed).view(np.float32))
        else:
            values = torch.from_numpy(dequantize(np.asarray(packed), kind).reshape(shape))
        if self.heads is not None:
            # llama.cpp's rotary pairs are neighbours, transformers' are half a head apart.
            values = values.reshape(self.heads, -1, 2, *shape[1:]).transpose(1, 2).reshape(shape)
        return values[slice(*rows)].to(self._device)
