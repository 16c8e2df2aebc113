"""Whose an object is: which service it concerns, and whether that service may write and delete it."""

from __future__ import annotations

from typing import Final, NamedTuple

from pagoda_operator.api.names import API_VERSION as SERVICE_API_VERSION
from pagoda_operator.api.names import KIND, SERVICE_LABEL, Object

MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "pagoda-operator"}
"""On every child and every pod; what the watches select by."""


class ServiceKey(NamedTuple):
    """Names one InferenceService."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(obj: Object) -> ServiceKey:
    """The key of an InferenceService."""
    return ServiceKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def concerned(obj: Object) -> ServiceKey | None:
    """The service that a child or a pod belongs to: by its controller, else by its label; None for a stranger."""
    metadata = obj["metadata"]
    owner = controller_of(obj)
    if owner is not None and owner.get("kind") == KIND and owner.get("apiVersion") == SERVICE_API_VERSION:
        return ServiceKey(metadata["namespace"], owner["name"])
    name = metadata.get("labels", {}).get(SERVICE_LABEL)
    return None if name is None else ServiceKey(metadata["namespace"], name)


def controls(service: Object, obj: Object) -> bool:
    """Whether `service` may write `obj`: it is its controller, or `obj` was made for it and has no controller.

    The latter is a model cache that is retained: it outlives its service, and the next service of that name has it.
    """
    owner = controller_of(obj)
    if owner is not None:
        return bool(owner.get("uid") == service["metadata"]["uid"])
    labels = obj["metadata"].get("labels", {})
    return bool(labels.get(SERVICE_LABEL) == service["metadata"]["name"] and MANAGED_BY.items() <= labels.items())


def holder(obj: Object) -> str:
    """Who holds an object that is not ours, in words for the user."""
    owner = controller_of(obj)
    if owner is not None:
        return f"it is controlled by {owner.get('kind')} {owner.get('name')}"
    managers = [entry["manager"] for entry in obj["metadata"].get("managedFields", []) if entry.get("manager")]
    return f"it was made by {managers[0]!r}" if managers else "it was made by somebody else"


def controller_of(obj: Object) -> Object | None:
    """The one ownerReference that is the controller, if any."""
    for reference in obj["metadata"].get("ownerReferences", []):
        if reference.get("controller"):
            return dict(reference)
    return None
