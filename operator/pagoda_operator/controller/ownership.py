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


class Belonging(NamedTuple):
    """Whose a child or a pod is; `uid` is that of the service where it is the controller, else None."""

    service: ServiceKey
    uid: str | None


def belonging(obj: Object) -> Belonging | None:
    """Which service a child or a pod belongs to: by its controller, else by its label; None for a stranger."""
    metadata = obj["metadata"]
    if (owner := owning_service(obj)) is not None:
        return Belonging(ServiceKey(metadata["namespace"], owner["name"]), owner["uid"])
    name = metadata.get("labels", {}).get(SERVICE_LABEL)
    return None if name is None else Belonging(ServiceKey(metadata["namespace"], name), None)


def controls(service: Object, obj: Object) -> bool:
    """Whether `service` may write `obj`: it is its controller, or `obj` was made for it and has no controller.

    The latter is a model cache that is retained: it outlives its service, and the next service of that name has it.
    """
    owner = controller_of(obj)
    if owner is not None:
        return bool(owner.get("uid") == service["metadata"]["uid"])
    labels = obj["metadata"].get("labels", {})
    return bool(labels.get(SERVICE_LABEL) == service["metadata"]["name"] and MANAGED_BY.items() <= labels.items())


def owning_service(obj: Object) -> Object | None:
    """The ownerReference of the service that controls `obj`, or once did; None where another kind does, or nobody."""
    owner = controller_of(obj)
    ours = owner is not None and (owner.get("apiVersion"), owner.get("kind")) == (SERVICE_API_VERSION, KIND)
    return owner if ours else None


def holder(service: Object, obj: Object) -> str:
    """Who holds an object in the place of a child of `service`, in words for the user."""
    former = owning_service(obj)
    if former is not None and former["name"] == service["metadata"]["name"]:
        return "it is left of a former service of this name, and will be removed in a moment"
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
