"""Names, labels and ownership that all children of a service share."""

from __future__ import annotations

from pagoda_operator.api.names import SERVICE_LABEL, Object
from pagoda_operator.builders.workload import Workload


def selector(service: str) -> dict[str, str]:
    """The labels that select a service's pods. They can't change in the life of a Deployment, so there is only one."""
    return {SERVICE_LABEL: service}


def labels(service: str, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "pagoda-engine",
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "pagoda",
        "app.kubernetes.io/managed-by": "pagoda-operator",
        **selector(service),
    }


def metadata(workload: Workload, component: str, *, name: str | None = None, owned: bool = True) -> Object:
    """A child's metadata. One that is not owned outlives its service."""
    result: Object = {
        "name": name or workload.name,
        "namespace": workload.namespace,
        "labels": labels(workload.name, component),
    }
    if owned:
        result["ownerReferences"] = [workload.owner]
    return result
