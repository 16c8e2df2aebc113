"""A model on disk: which files it has, whether they are whole, and what its config says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel

from pagoda_engine.errors import ModelCorrupt, ModelNotFound, ModelUnsupported
from pagoda_engine.model import gguf_model
from pagoda_engine.source import gguf, safetensors

_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"

# transformers' names of layers whose whole state is keys and values, seen by all later tokens or by the next few. Older
# ones have them in `layers_block_type`.
_ATTENTION_LAYERS: Final = frozenset({"full_attention", "sliding_attention", "attention"})


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the Hugging Face layout, or a GGUF file (then `gguf_name` is its name inside `folder`)."""

    folder: Path
    gguf_name: str | None = None

    @classmethod
    def at(cls, path: Path) -> Checkpoint:
        return cls(path.parent, path.name) if path.is_file() else cls(path)

    @property
    def path(self) -> Path:
        return self.folder / self.gguf_name if self.gguf_name else self.folder

    @property
    def index(self) -> Path | None:
        """The file that says which tensors there are: the one weight file, or the index of several."""
        if self.gguf_name:
            return None
        single = self.folder / _SINGLE
        return single if single.is_file() else self.folder / _INDEX

    @property
    def source(self) -> dict[str, Any]:
        """The arguments by which transformers' `from_pretrained` finds this checkpoint, and never a network."""
        named = {"gguf_file": self.gguf_name} if self.gguf_name else {}
        return {"pretrained_model_name_or_path": str(self.folder), "local_files_only": True, **named}

    def config(self) -> PreTrainedConfig:
        """The model's config. Raises ModelCorrupt, or ModelUnsupported where its kind of model is unknown."""
        if self.gguf_name:
            header = self.gguf_header()
            if known := gguf_model.read_config(header):
                return known
            architecture = header.metadata.get("general.architecture")
            try:
                return AutoConfig.from_pretrained(**self.source)
            except (ValueError, KeyError, NotImplementedError) as error:
                raise ModelUnsupported(f"{self.path} has the architecture {architecture!r}: {error}") from error
        path = self.folder / "config.json"
        kind = _document(path).get("model_type")
        if kind not in CONFIG_MAPPING:
            raise ModelUnsupported(f"{path} has model_type {kind!r}, which the installed transformers does not know")
        try:
            return AutoConfig.from_pretrained(**self.source)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelCorrupt(f"{path} can't be used: {error}") from error

    def headers(self) -> dict[Path, tuple[safetensors.Tensor, ...]]:
        """What each safetensors file says that it holds.

        Raises ModelCorrupt or ModelNotFound naming the file: missing, cut off, damaged, or without a tensor that the
        index says it has.
        """
        weight_map = self._weight_map()
        found = {}
        for path in self._shards(weight_map):
            with path.open("rb") as file:
                found[path] = safetensors.read_header(file, str(path), path.stat().st_size)
        held = {path.name: {tensor.name for tensor in tensors} for path, tensors in found.items()}
        for tensor, name in weight_map.items():
            if tensor not in held[name]:
                raise ModelCorrupt(
                    f"{self.folder / name} lacks the tensor {tensor!r}, which {_INDEX} says it holds; fetch it again"
                )
        return found

    def eos_token_ids(self, config: PreTrainedConfig) -> frozenset[int]:
        """The tokens that end a text, by the config and, where there is one, the generation config."""
        found = _ids(config.eos_token_id)
        path = self.folder / "generation_config.json"
        if not self.gguf_name and path.is_file():
            found |= _ids(_document(path).get("eos_token_id"))
        return found

    def gguf_header(self) -> gguf.Header:
        """The header of the GGUF file. Raises ModelCorrupt naming the file where it is damaged or was cut off."""
        return self._gguf_header

    @cached_property
    def _gguf_header(self) -> gguf.Header:
        """Read once: a vocabulary's strings are many to step over."""
        try:
            with self.path.open("rb") as file:
                return gguf.read_header(file, self.path.stat().st_size)
        except ModelCorrupt as error:
            raise ModelCorrupt(f"{self.path}: {error}") from error

    def _weight_map(self) -> dict[str, str]:
        """By the index which tensor is in which file; empty for a checkpoint of one file. Raises ModelCorrupt."""
        index = self.folder / _INDEX
        if (self.folder / _SINGLE).is_file() or not index.is_file():
            return {}
        weight_map = _document(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelCorrupt(f"{index} has no weight_map; fetch the model again")
        return {str(tensor): str(name) for tensor, name in weight_map.items()}

    def _shards(self, weight_map: dict[str, str]) -> Iterator[Path]:
        """The weight files. Raises ModelNotFound naming the one that is missing."""
        for name in sorted(set(weight_map.values())) or [_SINGLE]:
            path = self.folder / name
            # A name from the index is a stranger's: it stays inside the folder.
            if Path(name).name != name or not path.is_file():
                raise ModelNotFound(f"{path} is missing; fetch the model again")
            yield path


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that runs this config. Raises ModelUnsupported naming what the engine can't run."""
    name = (config.architectures or [type(config).__name__])[0]
    if any(medium in part for part in config.sub_configs for medium in ("text", "vision", "audio")):
        raise ModelUnsupported(f"{name} reads more than text; this engine runs language models only")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelUnsupported(f"{name} is no decoder-only language model; this engine runs those only")
    found: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not found._supports_attention_backend:
        raise ModelUnsupported(f"{name} has attention of its own in transformers, which can't use a paged cache")
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    if others := sorted(set(kinds) - _ATTENTION_LAYERS):
        raise ModelUnsupported(
            f"{name} has layers of {', '.join(others)}; this engine runs models with softmax attention in every layer"
        )
    if quantization := getattr(config, "quantization_config", None):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ModelUnsupported(f"{name} is quantised by {method}; take an unquantised checkpoint or a GGUF file")
    return found


def checkpoint_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    """The data type that the config names, or None."""
    dtype = config.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelNotFound(f"{path} is missing; fetch the model again") from None
    except ValueError as error:
        raise ModelCorrupt(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict):
        raise ModelCorrupt(f"{path} is no JSON object")
    return document


def _ids(value: int | list[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset(value) if isinstance(value, list) else frozenset({value})
