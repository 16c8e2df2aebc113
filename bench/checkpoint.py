"""The demo model as each system likes it best: as it was fetched for ours, as bfloat16 safetensors for transformers.

    python -m bench.checkpoint FILE.gguf FOLDER    convert

transformers takes long to read a GGUF file, and that is not what is compared here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import yaml

from pagoda_engine import source

_REPOSITORY: Final = Path(__file__).parents[1]
_EXAMPLE: Final = _REPOSITORY / "examples" / "smollm2.yaml"


def demo_model() -> Path:
    """The model that `make demo` serves, fetched if it is not here yet."""
    uri = yaml.safe_load(_EXAMPLE.read_text())["spec"]["model"]["uri"]
    return source.fetch(uri)


def for_transformers(model: Path) -> Path:
    """A folder of safetensors with the model's weights in bfloat16, made beside it on the first call."""
    if model.is_dir():
        return model
    folder = source.default_download_dir().parent / "bench" / model.stem
    if not folder.is_dir():
        command = [sys.executable, "-m", "bench.checkpoint", str(model.resolve()), str(folder.resolve())]
        subprocess.run(command, check=True, cwd=_REPOSITORY)
    return folder


def vocabulary_size(folder: Path) -> int:
    """Of a model in the Hugging Face layout."""
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def _convert(model: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    loaded = AutoModelForCausalLM.from_pretrained(
        str(model.parent),
        gguf_file=model.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    loaded.save_pretrained(unfinished)
    unfinished.rename(folder)


if __name__ == "__main__":
    _convert(*map(Path, sys.argv[1:]))
