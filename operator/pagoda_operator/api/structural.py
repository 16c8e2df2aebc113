"""From pydantic's JSON Schema to the structural schema that a CRD demands: no $ref, no null, one type a field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pagoda_operator.api.document import Document
from pagoda_operator.api.names import Object
from pagoda_operator.api.rules import Rule

KEPT: Final[tuple[str, ...]] = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)


def structural_schema(model: type[Document]) -> Object:
    """The structural schema of a document. Raises ValueError where a field's type has none."""
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Object, definitions: Object) -> Object:
    node = _resolved(node, definitions)
    if node.get("x-kubernetes-int-or-string"):
        node = {key: value for key, value in node.items() if key != "type"}
    elif "type" not in node:
        raise ValueError(f"no structural schema for {node}")
    result: Object = {key: node[key] for key in KEPT if key in node}
    result |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if result.get("default") in (None, [], {}):
        result.pop("default", None)
    if "properties" in node:
        result["properties"] = {name: _structural(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        result["items"] = _structural(node["items"], definitions)
    if isinstance(extra := node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(extra, definitions)
    return result


def _resolved(node: Object, definitions: Object) -> Object:
    """One schema without $ref, and without the `or null` of an optional field: absence is what null meant."""
    outer = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "$ref" in node:
        target: Object = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _resolved({**target, **outer}, definitions)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a field can't have several types in a structural schema: {node}")
        return _resolved({**options[0], **outer}, definitions)
    return outer


def add_rules(schema: Object, rules: Iterable[Rule]) -> None:
    """Put each rule's CEL where its path points, in place. Raises KeyError where the path leads nowhere."""
    for rule in rules:
        target: dict[str, Any] = schema
        for step in filter(None, rule.path.split(".")):
            target = target["properties"][step.removesuffix("[]")]
            if step.endswith("[]"):
                target = target["items"]
        validation: Object = {"rule": rule.cel, "message": rule.message}
        if rule.field:
            validation["fieldPath"] = f".{rule.field}"
        target.setdefault("x-kubernetes-validations", []).append(validation)
