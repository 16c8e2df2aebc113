"""What the API server does to an InferenceService on its way in, for where there is none: defaults and refusals.

Both walk the very schema that the CRD carries. Messages are worded as the API server words them
(k8s.io/apimachinery/pkg/util/validation/field and k8s.io/kube-openapi/pkg/validation/errors).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from pagoda_operator.api.crd import openapi_schema
from pagoda_operator.api.names import API_VERSION, KIND, Object
from pagoda_operator.api.rules import RULES, Rule

_PYTHON_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}


@cache
def _schema() -> Object:
    return openapi_schema()


def with_defaults(service: Object) -> Object:
    """A copy with the schema's defaults filled in, where their parent is present, as the API server does."""
    result = copy.deepcopy(service)
    _fill(result, _schema())
    return result


def _fill(value: Any, schema: Object) -> None:
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if "default" in child:
                value.setdefault(name, copy.deepcopy(child["default"]))
            if name in value:
                _fill(value[name], child)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            _fill(item, schema["items"])


def validate(service: Object) -> list[str]:
    """Why the API server would refuse this service, one sentence each, or nothing. Defaults need not be filled in."""
    if service.get("apiVersion") != API_VERSION or service.get("kind") != KIND:
        got = f"{service.get('apiVersion')}/{service.get('kind')}"
        return [f'no matches for kind "{got}": use apiVersion {API_VERSION} and kind {KIND}']
    if not isinstance(name := service.get("metadata", {}).get("name"), str) or not name:
        return ["metadata.name: Required value: name is required"]
    full = with_defaults(service)
    # As in the API server, rules are judged only where the schema holds, so that they need not check types.
    return list(_schema_problems(full, _schema(), "")) or list(_rule_problems(full))


def _schema_problems(value: Any, schema: Object, path: str) -> Iterator[str]:
    if path == "metadata" or path == "status":
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not _PYTHON_TYPES["integer"](value) and not isinstance(value, str):
            yield _invalid(path, value, f'{path} in body must be of type integer,string: "{_type_of(value)}"')
        elif "pattern" in schema and not re.search(schema["pattern"], str(value)):
            yield _invalid(path, value, f"{path} in body should match '{schema['pattern']}'")
        return
    if not _PYTHON_TYPES[schema["type"]](value):
        yield _invalid(path, _type_of(value), f'{path} in body must be of type {schema["type"]}: "{_type_of(value)}"')
        return
    match value:
        case dict():
            yield from _object_problems(value, schema, path)
        case list():
            if "maxItems" in schema and len(value) > schema["maxItems"]:
                yield f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items"
            if len(value) < schema.get("minItems", 0):
                yield _invalid(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
            yield from _duplicates(value, schema, path)
            for index, item in enumerate(value):
                yield from _schema_problems(item, schema["items"], f"{path}[{index}]")
        case str():
            yield from _string_problems(value, schema, path)
        case bool():
            return
        case _:
            if "minimum" in schema and value < schema["minimum"]:
                yield _invalid(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}")
            if "maximum" in schema and value > schema["maximum"]:
                yield _invalid(path, value, f"{path} in body should be less than or equal to {schema['maximum']}")


def _object_problems(value: Object, schema: Object, path: str) -> Iterator[str]:
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        yield f"{path}: Too many: {len(value)}: must have at most {schema['maxProperties']} items"
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{_join(path, name)}: Required value"
    for name, item in value.items():
        if name in properties:
            yield from _schema_problems(item, properties[name], _join(path, name))
        elif extra is not None:
            yield from _schema_problems(item, extra, _join(path, name))
        else:
            yield f'strict decoding error: unknown field "{_join(path, name)}"'


def _string_problems(value: str, schema: Object, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(json.dumps(option) for option in schema["enum"])
        yield f"{path}: Unsupported value: {json.dumps(value)}: supported values: {supported}"
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes"
    if "minLength" in schema and len(value) < schema["minLength"]:
        yield _invalid(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield _invalid(path, value, f"{path} in body should match '{schema['pattern']}'")


def _duplicates(items: list[Any], schema: Object, path: str) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys", ())
    seen: list[Object] = []
    for index, item in enumerate(items):
        if keys and isinstance(item, dict):
            key = {name: item.get(name) for name in keys}
            if key in seen:
                yield f"{path}[{index}]: Duplicate value: {json.dumps(key, separators=(',', ':'))}"
            seen.append(key)


def _rule_problems(service: Object) -> Iterator[str]:
    for rule in RULES:
        for path, value in _places(service, rule.path.split(".") if rule.path else [], ""):
            if not rule.holds(value):
                yield _refusal(rule, path, value)


def _refusal(rule: Rule, path: str, value: Any) -> str:
    where = _join(path, rule.field) if rule.field else path or "<nil>"
    blamed = value.get(rule.field) if rule.field and isinstance(value, dict) else value
    return _invalid(where, blamed if isinstance(blamed, (str, int)) else _type_of(blamed), rule.message)


def _places(value: Any, steps: list[str], path: str) -> Iterator[tuple[str, Any]]:
    """Each value that a rule's path leads to, with its own path; none where a part of the way is absent."""
    if not steps:
        yield path, value
        return
    name = steps[0].removesuffix("[]")
    if name not in value:
        return
    here = _join(path, name)
    if steps[0].endswith("[]"):
        for index, item in enumerate(value[name]):
            yield from _places(item, steps[1:], f"{here}[{index}]")
    else:
        yield from _places(value[name], steps[1:], here)


def _invalid(path: str, value: Any, reason: str) -> str:
    return f"{path}: Invalid value: {json.dumps(value)}: {reason}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    return next(name for name, is_type in _PYTHON_TYPES.items() if is_type(value))
