"""The table of refusals, on the real API server: what the schema says at `kubectl apply`, and what a condition says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.api import Object
from e2e.cluster import Cluster, KubectlError
from e2e.services import TINY, Services

TABLE = yaml.safe_load(
    (Path(__file__).parent.parent / "tests" / "operator" / "api" / "refusals.yaml").read_text(encoding="utf-8")
)


def entries(where: str) -> list[Any]:
    return [pytest.param(entry, id=entry["name"]) for entry in TABLE["refusals"] if entry["where"] == where]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("entry", entries("schema"))
def test_refused_at_apply(bare_cluster: Cluster, entry: Object) -> None:
    """`kubectl apply` fails with the message of the table."""
    text = json.dumps(merged(TABLE["base"], entry["patch"]))
    with pytest.raises(KubectlError) as refusal:
        bare_cluster.kubectl("apply", "--dry-run=server", "-f", "-", text=text)
    assert entry["message"] in str(refusal.value)


@pytest.mark.usefixtures("release")
def test_the_base_of_the_table_is_admitted(bare_cluster: Cluster) -> None:
    """Otherwise every patch of it would be refused for the wrong reason."""
    bare_cluster.kubectl("apply", "--dry-run=server", "-f", "-", text=json.dumps(TABLE["base"]))


@pytest.mark.parametrize("entry", entries("condition"))
def test_told_by_a_condition(services: Services, entry: Object) -> None:
    """Admitted, then Planned=False with the table's reason, and no pod; on nodes without GPUs."""
    here = {
        "metadata": {"namespace": services.namespace},
        "spec": {"model": {"uri": TINY}, "nodeSelector": {"kubernetes.io/hostname": "cpu-1"}},
    }
    asked = merged(merged(TABLE["base"], here), entry["patch"])
    services.cluster.apply(asked)
    name = asked["metadata"]["name"]
    services.told(name, "Planned", entry["reason"], entry["message"])
    assert services.pods(name) == []
