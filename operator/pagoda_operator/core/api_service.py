"""The APIService that sends external.metrics.k8s.io to this operator, and whose it is; pure.

A cluster has one owner of the group. Where that is somebody else (KEDA's adapter, a vendor's) nothing is written, also
where they took it over from us: two programs that repair the same object would fight for ever.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from pagoda_operator.api.names import FIELD_MANAGER, Object
from pagoda_operator.cluster.resources import API_SERVICE, CLUSTER_ROLE

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = "v1beta1"
NAME: Final = f"{VERSION}.{GROUP}"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PRIORITY: Final = 100
"""Both of them; they order groups in discovery, and what other adapters have there is the same."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The Service through which an API server reaches this operator."""

    namespace: str
    service: str
    port: int = 443


def api_service(backend: Backend, authorities: bytes, owner: Object | None) -> Object:
    """What this operator applies. `authorities` are PEM; with `owner`, a ClusterRole, it is garbage once that goes."""
    metadata: Object = {
        "name": NAME,
        "labels": {
            MANAGED_BY: FIELD_MANAGER,
            "app.kubernetes.io/part-of": "pagoda",
        },
    }
    if owner is not None:
        reference = {"apiVersion": CLUSTER_ROLE.api_version, "kind": CLUSTER_ROLE.kind}
        metadata["ownerReferences"] = [{**reference, **{key: owner["metadata"][key] for key in ("name", "uid")}}]
    return {
        "apiVersion": API_SERVICE.api_version,
        "kind": API_SERVICE.kind,
        "metadata": metadata,
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": PRIORITY,
            "versionPriority": PRIORITY,
            "service": {"namespace": backend.namespace, "name": backend.service, "port": backend.port},
            "caBundle": base64.b64encode(authorities).decode(),
        },
    }


def foreign_holder(live: Object, backend: Backend) -> str:
    """Who else holds the group, in words; empty where it is ours.

    Ours bears our label and points at our Service: one that was made for another release, or by somebody for us, was
    made by somebody who may want it back.
    """
    service = live.get("spec", {}).get("service")
    labels = live["metadata"].get("labels", {})
    if service is None:
        return "a CustomResourceDefinition of that group"
    to_us = (service.get("namespace"), service.get("name")) == (backend.namespace, backend.service)
    if to_us and labels.get(MANAGED_BY) == FIELD_MANAGER:
        return ""
    where = f"Service {service.get('namespace')}/{service.get('name')}"
    return f"{where}, by an APIService that this operator did not make" if to_us else where


def unavailable(live: Object) -> str:
    """Why the API server finds our APIService unavailable, in its words; empty where it does not."""
    for condition in live.get("status", {}).get("conditions", []):
        if condition["type"] == "Available" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""
