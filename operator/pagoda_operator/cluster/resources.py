"""The kinds that the operator reads and writes, one constant each, and the paths under which an API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One kind in one version. `group` is empty for the core API. Each is one of the constants below, and equal to
    itself alone: keys are made of them, by the thousand."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def api_path(self) -> str:
        """Where the API server has this group and version; GET answers which kinds it serves."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of a collection, an object or its subresource.

        `namespace` None means all namespaces, which only a collection can have.
        """
        parts = [self.api_path]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


INFERENCE_SERVICE: Final = Resource("pagoda.dev", "v1alpha1", "inferenceservices", "InferenceService")
DEPLOYMENT: Final = Resource("apps", "v1", "deployments", "Deployment")
SERVICE: Final = Resource("", "v1", "services", "Service")
PERSISTENT_VOLUME_CLAIM: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
POD_DISRUPTION_BUDGET: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
SERVICE_ACCOUNT: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
HORIZONTAL_POD_AUTOSCALER: Final = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
SCALED_OBJECT: Final = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
POD: Final = Resource("", "v1", "pods", "Pod")
NODE: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
SECRET: Final = Resource("", "v1", "secrets", "Secret")
EVENT: Final = Resource("", "v1", "events", "Event")
LEASE: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CONFIG_MAP: Final = Resource("", "v1", "configmaps", "ConfigMap")
CLUSTER_ROLE: Final = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
API_SERVICE: Final = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False)

CHILDREN: Final = (
    SERVICE_ACCOUNT,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE,
    DEPLOYMENT,
    POD_DISRUPTION_BUDGET,
    HORIZONTAL_POD_AUTOSCALER,
    SCALED_OBJECT,
)
"""The kinds that a service may have children of."""

OPTIONAL: Final = (SCALED_OBJECT,)
"""The kinds that a cluster may lack; everything else is part of Kubernetes or of Pagoda."""

ALL: Final = (
    INFERENCE_SERVICE,
    *CHILDREN,
    POD,
    NODE,
    SECRET,
    EVENT,
    LEASE,
    CONFIG_MAP,
    CLUSTER_ROLE,
    API_SERVICE,
)

_BY_TYPE: Final = {(resource.api_version, resource.kind): resource for resource in ALL}
_BY_KIND: Final = {resource.kind: resource for resource in ALL}


def resource_of(obj: dict[str, Any]) -> Resource:
    """The resource of an object, by its `apiVersion` and `kind`. Raises ValueError where the operator has none."""
    key = (obj.get("apiVersion", ""), obj.get("kind", ""))
    if key not in _BY_TYPE:
        raise ValueError(f"no resource for apiVersion {key[0]!r}, kind {key[1]!r}; add it to cluster/resources.py")
    return _BY_TYPE[key]


def resource_of_kind(kind: str) -> Resource:
    """The resource of a kind's name; kinds are unique here. Raises ValueError where the operator has none."""
    if kind not in _BY_KIND:
        raise ValueError(f"no resource of kind {kind!r}; add it to cluster/resources.py")
    return _BY_KIND[kind]
