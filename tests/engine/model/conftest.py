"""Tiny models with random weights, whole on disk, and an engine over them that is driven step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from pagoda_engine.contract import EngineArgs
from pagoda_engine.core.engine import EngineCore
from pagoda_engine.core.request import Request
from pagoda_engine.model.build import build_engine
from pagoda_engine.sampling_params import SamplingParams

_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 211,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    # Large weights make outputs differ clearly, so that a wrong cache shows in the first tokens.
    "initializer_range": 0.2,
}

FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SHAPE),
    "llama-tied": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "llama-biased": LlamaConfig(**_SHAPE, attention_bias=True, mlp_bias=True),
    "llama3-rope": LlamaConfig(
        **_SHAPE,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": MistralConfig(**_SHAPE, sliding_window=None),
    "mistral-window": MistralConfig(**_SHAPE, sliding_window=9),
    "qwen2": Qwen2Config(**_SHAPE),
    "qwen2-window": Qwen2Config(**_SHAPE, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": Qwen3Config(**_SHAPE, head_dim=24),
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tiny matrices are slower on two threads than on one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Callable[[str], Path]:
    """A family's checkpoint in a folder, made once."""
    folders: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp(family)
            reference_from(FAMILIES[family]).save_pretrained(folders[family])
        return folders[family]

    return make


def reference_from(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).float().eval()


@pytest.fixture
def build() -> Callable[..., EngineCore]:
    """An engine over a checkpoint, on the CPU in float32."""

    def make(path: Path, **engine_args) -> EngineCore:
        args = {"device": "cpu", "dtype": "float32", "kv_cache_memory_bytes": 16 << 20, **engine_args}
        return build_engine(EngineArgs(str(path), **args), lambda progress: None)

    return make


@pytest.fixture
def generate() -> Callable[..., list[list[int]]]:
    """Run prompts through an engine, all at once or as `arrivals` says (prompts that join before each step)."""

    def run(
        engine: EngineCore,
        prompts: Sequence[list[int]],
        params: SamplingParams | Sequence[SamplingParams],
        arrivals: int | None = None,
    ) -> list[list[int]]:
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        queue = [
            Request(str(index), prompt, each[index], engine.info.eos_token_ids, time.monotonic())
            for index, prompt in enumerate(prompts)
        ]
        tokens: dict[str, list[int]] = {request.id: [] for request in queue}
        while queue or engine.has_work:
            for request in queue[: arrivals or len(queue)]:
                engine.add(request)
            queue = queue[arrivals or len(queue) :]
            for output in engine.step():
                assert output.error is None
                tokens[output.request_id] += output.token_ids
        engine.check_integrity()
        return list(tokens.values())

    return run
