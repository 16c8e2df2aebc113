"""What the operator would write for a service, reckoned by its own core beforehand: the bare client's documents."""

from __future__ import annotations

from datetime import UTC, datetime

from e2e.api import Object
from e2e.nodes import H100, Machine

from bench.operator.bare import UID
from pagoda_engine.contract import ModelFacts
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, resource_of
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.plan import Plan, plan
from pagoda_operator.core.settings import Settings
from pagoda_operator.planner.nodes import Node

MODEL = ModelFacts(
    architecture="LlamaForCausalLM",
    dtype="bfloat16",
    weight_bytes=250_000,
    download_bytes=300_000,
    num_layers=2,
    num_attention_heads=4,
    num_kv_heads=2,
    head_dim=16,
    hidden_size=64,
    vocab_size=260,
    max_model_len=2048,
    parameters=125_000,
)


def of(service: Object) -> Object:
    """Children in the order in which they are written, the status after that, and the status when a replica answers."""
    live = service | {"metadata": service["metadata"] | {"uid": UID, "generation": 1}}
    first = _plan(live, Facts(now=datetime.now(UTC), model=MODEL, nodes=_nodes()))
    children = {(child["kind"], child["metadata"]["name"]): _living(child) for child in first.apply}
    planned = _plan(live, Facts(now=datetime.now(UTC), model=MODEL, nodes=_nodes(), children=children))
    name = service["metadata"]["name"]
    replicas = service["spec"]["replicas"]
    children["Deployment", name]["status"] = {
        "observedGeneration": 1,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": 1,
    }
    ready = _plan(live, Facts(now=datetime.now(UTC), model=MODEL, nodes=_nodes(), children=children))
    return {
        "key": [service["metadata"]["namespace"], name],
        "children": [
            [resource_of(child).path(service["metadata"]["namespace"], child["metadata"]["name"]), child]
            for child in first.apply
        ],
        "planned": _status(live, planned),
        "ready": _status(live, ready),
    }


def _plan(service: Object, facts: Facts) -> Plan:
    return plan(service, facts, Settings())


def _living(child: Object) -> Object:
    return child | {"metadata": child["metadata"] | {"uid": "child", "generation": 1}}


def _nodes() -> tuple[Node, ...]:
    return (Node.of(Machine("node-0", gpu=H100, gpus=8).to_object("10.215.0.1")),)


def _status(service: Object, made: Plan) -> list[object]:
    metadata = {name: service["metadata"][name] for name in ("name", "namespace", "uid")}
    path = INFERENCE_SERVICE.path(metadata["namespace"], metadata["name"], "status")
    document = {"apiVersion": service["apiVersion"], "kind": service["kind"], "metadata": metadata}
    return [path, document | {"status": made.status}]
