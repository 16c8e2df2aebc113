"""`values.schema.json` refuses what the chart would not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "pagoda"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"imagee": {}}, "imagee"),
        ({"image": {"tagg": "x"}}, "/image"),
        ({"image": {"repository": ""}}, "/image/repository"),
        ({"image": {"repository": "r@sha256:0"}}, "/image/repository"),
        ({"image": {"tag": 1.0}}, "/image/tag"),
        ({"image": {"digest": "sha256:12"}}, "/image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"imagePullSecrets": ["name"]}, "/imagePullSecrets/0"),
        ({"engine": {"image": {"repository": "x"}}}, "/engine/image"),
        ({"engine": {"env": {"A": "b"}}}, "/engine/env"),
        ({"engine": {"env": [{"value": "b"}]}}, "/engine/env/0"),
        ({"engine": {"env": [{"name": "A", "value": 1}]}}, "/engine/env/0/value"),
        ({"engine": {"tolerations": [{"effect": "Never"}]}}, "/engine/tolerations/0/effect"),
        ({"engine": {"runAsUser": 0}}, "/engine/runAsUser"),
        ({"engine": {"drainDelay": -1}}, "/engine/drainDelay"),
        ({"engine": {"shutdownTimeout": "60"}}, "/engine/shutdownTimeout"),
        ({"hfEndpoint": "huggingface.co"}, "/hfEndpoint"),
        ({"prometheusAddress": "prometheus:9090"}, "/prometheusAddress"),
        ({"networkPolicy": {"activation": [{}]}}, "/networkPolicy/activation/0"),
        ({"networkPolicy": {"scaler": {"podSelector": {}}}}, "/networkPolicy/scaler"),
        ({"replicas": -1}, "/replicas"),
        ({"replicas": "two"}, "/replicas"),
        ({"watchNamespaces": "default"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Default"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces"),
        ({"rbac": {"scope": "cluster"}}, "/rbac"),
        ({"rbac": {"modelSecrets": "yes"}}, "/rbac/modelSecrets"),
        ({"crds": {"enabled": "yes"}}, "/crds/enabled"),
        ({"serviceAccount": {"name": "Robot"}}, "/serviceAccount/name"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"leaderElection": {"enabled": False}, "replicas": 2}, "/replicas"),
        ({"resources": {"limit": {}}}, "/resources"),
        ({"metrics": {"enabled": True}}, "/metrics"),
        ({"metrics": {"podMonitor": {"interval": "5"}}}, "/metrics/podMonitor/interval"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_refused_by_its_place(refusal, values, where):
    """Helm's message names the value that is wrong."""
    assert where in refusal(values)


def _objects(schema, path=""):
    if schema.get("type") == "object" and "properties" in schema:
        yield path, schema
    for key, child in schema.get("properties", {}).items():
        yield from _objects(child, f"{path}.{key}")
    for key, child in schema.get("$defs", {}).items():
        yield from _objects(child, f"$defs.{key}")
    if "items" in schema:
        yield from _objects(schema["items"], f"{path}[]")


@pytest.mark.parametrize(("path", "schema"), list(_objects(SCHEMA)), ids=lambda v: v if isinstance(v, str) else "")
def test_no_object_of_ours_takes_unknown_keys(path, schema):
    """A typing error never passes for a setting."""
    assert schema["additionalProperties"] is False


def _resolve(schema):
    return SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema


def _keys(schema, path=""):
    for key, child in schema.get("properties", {}).items():
        place = f"{path}{key}"
        child = _resolve(child)
        yield place
        yield from _keys(child, f"{place}.")


def _lookup(values, place):
    for key in place.split("."):
        values = values[key]
    return values


@pytest.mark.parametrize("place", [p for p in _keys(SCHEMA) if p != "global" and not p.startswith("resources.")])
def test_every_key_of_the_schema_has_a_default(place):
    """values.yaml shows all that can be set; what it holds beyond that, Helm refuses."""
    _lookup(VALUES, place)
