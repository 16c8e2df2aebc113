"""The CRD is generated, structural, and current."""

from pathlib import Path

import pytest
import yaml

from pagoda_operator.api.crd import COLUMNS, FILE, custom_resource_definition, main, openapi_schema, to_yaml

ROOT = Path(__file__).parents[3]


def test_the_file_is_what_the_models_generate():
    assert (ROOT / FILE).read_text() == to_yaml(), "run `make crd`"


def test_the_command_writes_the_file(tmp_path):
    assert main([str(tmp_path / "crds")]) == 0
    written = yaml.safe_load((tmp_path / "crds" / FILE.name).read_text())
    assert written == custom_resource_definition()


def places(schema, path="$"):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from places(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from places(schema[name], f"{path}[]")


@pytest.mark.parametrize(("path", "schema"), list(places(openapi_schema())), ids=lambda value: str(value)[:60])
def test_a_place_of_the_schema_is_structural(path, schema):
    """As k8s.io/apiextensions-apiserver demands: one type everywhere, and no reference or alternative."""
    assert "type" in schema or schema.get("x-kubernetes-int-or-string")
    assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const", "exclusiveMinimum"} & schema.keys()
    assert schema.get("default", "") is not None
    for key in schema.get("x-kubernetes-list-map-keys", ()):
        assert key in schema["items"]["required"], "a key of a list map must be required or have a default"


def test_the_columns_are_the_documented_ones():
    titles = ["READY", "REASON", "MODEL", "GPU", "TP", "REPLICAS", "CACHE", "WAITING", "URL", "AGE"]
    assert [title for title, _, _ in COLUMNS] == titles


def test_every_column_reads_a_field_of_the_schema():
    properties = openapi_schema()["properties"]
    for title, type_, path in COLUMNS:
        if path.startswith(".metadata") or "[?" in path:
            continue
        schema = {"properties": properties}
        for step in path.removeprefix(".").split("."):
            schema = schema["properties"][step]
        assert schema["type"] == type_, title


def test_scaling_is_a_subresource_with_a_default_for_replicas():
    """Without a default, /scale of a service that names no replicas answers 500."""
    version = custom_resource_definition()["spec"]["versions"][0]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    assert version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"]["default"] == 1
