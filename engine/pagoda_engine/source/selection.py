"""Which files of a model the engine needs: a decision over names, alike for a repository and a local folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from pagoda_engine.errors import ModelCorrupt, ModelNotFound, ModelUnsupported

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"
_SIDE_FILES: Final = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})  # config, tokenizer, chat template


@dataclass(frozen=True, slots=True)
class Selection:
    """What to fetch. `weights` are those of `files` that hold tensors; `model` is the .gguf file's name, or empty."""

    files: tuple[str, ...]
    weights: tuple[str, ...]
    model: str = ""


def select(model: str, sizes: Mapping[str, int], file: str = "", index: bytes | None = None) -> Selection:
    """Choose from a folder's files, by path and size in bytes.

    `file` is the .gguf file that the URI names, if any, `index` the content of `model.safetensors.index.json` where
    there is one. Safetensors come before GGUF, and duplicates in other formats (.bin, .pth, .onnx, `consolidated`)
    stay where they are: pickles are never loaded. Raises ModelNotFound and ModelUnsupported, naming what is there.
    """
    root = [name for name in sizes if "/" not in name and "\\" not in name and name.isprintable() and name[0] != "."]
    ggufs = [name for name in root if name.endswith(".gguf")]
    if file:
        if file not in sizes:
            raise ModelNotFound(f"{model}: there is no such file; the .gguf files are: {_listing(ggufs)}")
        return Selection((file,), (file,), PurePosixPath(file).name)
    shards = _shards(model, index) if index is not None else (_SINGLE,) if _SINGLE in root else ()
    if shards:
        if absent := [name for name in (*shards, CONFIG) if name not in root]:
            raise ModelUnsupported(f"{model} has safetensors weights, but not {_listing(absent)}; use a complete one")
        side = [name for name in root if PurePosixPath(name).suffix in _SIDE_FILES and not _is_other_index(name)]
        return Selection((*shards, *side), shards)
    if len(ggufs) == 1:
        return Selection((ggufs[0],), (ggufs[0],), ggufs[0])
    if ggufs:
        raise ModelNotFound(
            f"{model} has {len(ggufs)} .gguf files; name one, {model}/{ggufs[0]}, of: {_listing(ggufs)}"
        )
    raise ModelUnsupported(
        f"{model} has neither {_SINGLE} nor a .gguf file, only: {_listing(sorted(root))}; "
        "pickled weights (.bin, .pth) are never loaded, so convert them to safetensors"
    )


def _shards(model: str, index: bytes) -> tuple[str, ...]:
    try:
        names = json.loads(index)["weight_map"].values()
        return tuple(dict.fromkeys(map(str, names)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelCorrupt(f"{model}: {INDEX} is damaged: {error!r}") from error


def _is_other_index(name: str) -> bool:
    return name.endswith(".index.json") and name != INDEX


def _listing(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"
