"""What is kept of an object: all that planning reads, and little else, so that thousands fit into memory.

It also defines what a change is: an object that is the same after trimming, its resourceVersion apart, wakes nobody
(a Node's heartbeat, a field manager's time stamp).
"""

from __future__ import annotations

from typing import Any, Final

from pagoda_operator.api.names import MODEL_ANNOTATION, SERVICE_LABEL, Object
from pagoda_operator.cluster.resources import (
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    SCALED_OBJECT,
    SERVICE,
    Resource,
)
from pagoda_operator.core import deletion_cost

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_POD_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
)
_POD_LABELS: Final = (SERVICE_LABEL,)
_POD_ANNOTATIONS: Final = (MODEL_ANNOTATION, deletion_cost.ANNOTATION)
_POD_CONDITIONS: Final = ("PodScheduled", "Ready")
_CONTAINER_FIELDS: Final = ("name", "ports", "resources")
_POD_STATUS_DROPPED: Final = ("hostIP", "hostIPs", "podIPs", "qosClass", "observedGeneration")
_CONTAINER_STATUS_DROPPED: Final = (
    "image",
    "imageID",
    "containerID",
    "resources",
    "allocatedResources",
    "volumeMounts",
)
_STATUS_READ: Final[dict[Resource, tuple[str, ...]]] = {
    DEPLOYMENT: ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas"),
    HORIZONTAL_POD_AUTOSCALER: ("conditions",),
    PERSISTENT_VOLUME_CLAIM: ("phase",),
    POD_DISRUPTION_BUDGET: (),
    SCALED_OBJECT: ("conditions",),
    SERVICE: (),
}
"""What is read of the statuses of children that have long ones."""
_DEPLOYMENT_CONDITIONS: Final = ("ReplicaFailure",)
_CONDITION_READ: Final = ("type", "status", "reason", "message")


def trim(resource: Resource, obj: Object) -> Object:
    """A copy of `obj` with what is kept; parts of it are shared with `obj`."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    if resource == POD:
        metadata = _pod_metadata(metadata)
    if _LAST_APPLIED in metadata.get("annotations", {}):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != _LAST_APPLIED}
    kept: Object = {"apiVersion": resource.api_version, "kind": resource.kind} | obj | {"metadata": metadata}
    if resource == POD:
        kept["spec"] = _pod_spec(obj.get("spec", {}))
        kept["status"] = _pod_status(obj.get("status", {}))
    elif resource == NODE:
        metadata.pop("annotations", None)
        kept["status"] = _node_status(obj.get("status", {}))
    elif resource in _STATUS_READ:
        kept["status"] = {key: value for key, value in obj.get("status", {}).items() if key in _STATUS_READ[resource]}
    if resource == DEPLOYMENT:
        kept["status"]["conditions"] = [
            {key: condition.get(key) for key in _CONDITION_READ}
            for condition in obj.get("status", {}).get("conditions", [])
            if condition["type"] in _DEPLOYMENT_CONDITIONS
        ]
    return kept


def _pod_metadata(metadata: Object) -> Object:
    kept: Object = {key: metadata[key] for key in _POD_METADATA if key in metadata}
    for part, names in (("labels", _POD_LABELS), ("annotations", _POD_ANNOTATIONS)):
        given = metadata.get(part, {})
        kept[part] = {name: given[name] for name in names if name in given}
    return kept


def _pod_spec(spec: Object) -> Object:
    kept: Object = {key: spec[key] for key in ("nodeName", "terminationGracePeriodSeconds") if key in spec}
    for containers in ("initContainers", "containers"):
        kept[containers] = [
            {field: container[field] for field in _CONTAINER_FIELDS if field in container}
            for container in spec.get(containers, [])
        ]
    return kept


def _pod_status(status: Object) -> Object:
    kept: Object = {key: value for key, value in status.items() if key not in _POD_STATUS_DROPPED}
    if "conditions" in status:
        kept["conditions"] = [condition for condition in status["conditions"] if condition["type"] in _POD_CONDITIONS]
    for containers in ("initContainerStatuses", "containerStatuses"):
        if containers in status:
            kept[containers] = [
                {key: value for key, value in container.items() if key not in _CONTAINER_STATUS_DROPPED}
                for container in status[containers]
            ]
    return kept


def _node_status(status: Object) -> Object:
    conditions: list[Any] = [{"type": c["type"], "status": c["status"]} for c in status.get("conditions", [])]
    kept = {key: status[key] for key in ("allocatable", "capacity") if key in status}
    return kept | {"conditions": conditions}
