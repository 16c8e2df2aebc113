"""What an API server does to an object on its way in: names it, defaults it, refuses it, and keeps parts for itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from pagoda_operator.api.names import Object
from pagoda_operator.api.validation import validate, with_defaults
from pagoda_operator.cluster.errors import Invalid
from pagoda_operator.cluster.resources import ALL, INFERENCE_SERVICE, Resource

Key: TypeAlias = tuple[str, str]
"""(namespace, name); the namespace of a cluster-wide object is empty."""

WITHOUT_STATUS: Final = ("ServiceAccount", "Secret", "Event", "Lease", "ConfigMap", "ClusterRole")
WITH_STATUS: Final = frozenset(r for r in ALL if r.kind not in WITHOUT_STATUS)
"""Kinds whose status is a subresource: writes to the object leave it alone, writes to it leave the rest alone."""

IMMUTABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "Deployment": ("selector",),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeMode", "volumeName"),
}
"""Fields of `spec` that an API server does not let change."""

SERVER_FIELDS: Final = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
)
"""Parts of metadata that only the server writes."""

_NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names (k8s.io/apimachinery/pkg/util/rand): no vowels, so no words."""


def named(obj: Object) -> Object:
    """A copy that has a name, made from `generateName` where it has none."""
    metadata = dict(obj["metadata"])
    if not metadata.get("name") and "generateName" in metadata:
        metadata["name"] = metadata["generateName"] + "".join(random.choices(_NAME_ALPHABET, k=5))
    return copy.deepcopy({**obj, "metadata": metadata})


def key_of(resource: Resource, obj: Object) -> Key:
    """Raises Invalid where the object does not say which it is."""
    metadata = obj["metadata"]
    if not metadata.get("name"):
        raise Invalid("name is required", status=422)
    if resource.namespaced and not metadata.get("namespace"):
        raise Invalid("an empty namespace may not be set during creation", status=422)
    return metadata["namespace"] if resource.namespaced else "", metadata["name"]


def main_part(resource: Resource, obj: Object) -> Object:
    """The object without a status that has a subresource of its own."""
    return {name: value for name, value in obj.items() if name != "status" or resource not in WITH_STATUS}


def ownable(obj: Object) -> Object:
    """The part of an object that field managers own: not its identity, nor its status, nor what the server writes."""
    fixed = (*SERVER_FIELDS, "name", "namespace", "generateName")
    metadata = {name: value for name, value in obj.get("metadata", {}).items() if name not in fixed}
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata", "status")}
    return {**rest, **({"metadata": metadata} if metadata else {})}


def without_nulls(value: Any) -> Any:
    """In an applied object, null says nothing."""
    if isinstance(value, dict):
        return {name: without_nulls(child) for name, child in value.items() if child is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def admitted(resource: Resource, obj: Object) -> Object:
    """The object with its defaults. Raises Invalid."""
    if resource != INFERENCE_SERVICE:
        return obj
    if problems := validate(main_part(resource, obj)):
        raise invalid(resource, obj["metadata"].get("name", ""), problems)
    return with_defaults(obj)


def check_immutable(resource: Resource, before: Object, after: Object) -> None:
    """Raises Invalid where an update changes what can't change."""
    for name in IMMUTABLE.get(resource.kind, ()):
        if name in before.get("spec", {}) and before["spec"][name] != after["spec"].get(name):
            raise invalid(resource, after["metadata"]["name"], [f"spec.{name}: Invalid value: field is immutable"])


def invalid(resource: Resource, name: str, problems: Sequence[str]) -> Invalid:
    """The refusal in the API server's words."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    listed = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return Invalid(f'{kind} "{name}" is invalid: {listed}', status=422)
