"""Models and nodes to plan with."""

import pytest

from pagoda_engine.contract import ModelFacts
from pagoda_operator.api.spec import Spec


def model_facts(**changes):
    """Qwen2.5-7B: 28 query heads, 4 KV heads; 15.2 GB of bfloat16."""
    facts = {
        "architecture": "Qwen2ForCausalLM",
        "dtype": "bfloat16",
        "weight_bytes": 15_231_233_024,
        "download_bytes": 15_242_694_808,
        "num_layers": 28,
        "num_attention_heads": 28,
        "num_kv_heads": 4,
        "head_dim": 128,
        "hidden_size": 3584,
        "vocab_size": 152064,
        "max_model_len": 32768,
        "parameters": 7_615_616_512,
    }
    return ModelFacts(**{**facts, **changes})


def gpu_node(name="gpu-1", product="NVIDIA-H100-80GB-HBM3", memory="81559", count="8", **changes):
    node = {
        "metadata": {
            "name": name,
            "labels": {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory, "nvidia.com/gpu.count": "8"},
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "64", "nvidia.com/gpu": count},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return {**node, **changes}


@pytest.fixture
def qwen():
    return model_facts()


@pytest.fixture
def model():
    """Facts of a model, some changed."""
    return model_facts


@pytest.fixture
def node():
    """A node with GPUs, some of it changed."""
    return gpu_node


@pytest.fixture
def spec():
    """The spec of a service, some fields set."""

    def make(**fields):
        return Spec.model_validate({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}, **fields})

    return make
