"""Names that other programs see: the API group, labels, annotations, the field manager."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as the API server writes it: plain JSON values, camelCase keys."""

GROUP: Final = "pagoda.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceService"
PLURAL: Final = "inferenceservices"
SINGULAR: Final = "inferenceservice"
SHORT_NAME: Final = "infsvc"
CATEGORY: Final = "inference"

FIELD_MANAGER: Final = "pagoda-operator"

SERVICE_LABEL: Final = f"{GROUP}/service"
"""On every child and every pod, its service's name; the one label of the immutable selectors."""
APPLIED_ANNOTATION: Final = f"{GROUP}/applied"
"""On every child, a hash of the fields that the operator last applied, so that a field it stops wanting is noticed."""
MODEL_ANNOTATION: Final = f"{GROUP}/model-uri"
"""On every pod, the URI of the model that it was made for."""
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
"""On a Deployment, the pods' template as the operator made it, in JSON: an upgrade goes on applying this one."""
AFTER_ANNOTATION: Final = f"{GROUP}/template-after"
"""On a Deployment, its generation before its template was written: who has seen no later one has not seen that."""
ASKED_ANNOTATION: Final = f"{GROUP}/asked"
"""On a Deployment, a hash of what was asked when its template was made; another hash is another template."""
UPGRADE_ANNOTATION: Final = f"{GROUP}/upgrade"
"""On a service; users give it another value to have the pods made anew by the operator and settings of today."""

WAITING_METRIC: Final = "pagoda_service_requests_waiting"
RUNNING_METRIC: Final = "pagoda_service_requests_running"
"""On the operator's /metrics, the load of each service that scales by itself."""
SERVICE_METRIC_LABEL: Final = "inferenceservice"
"""`NAMESPACE/NAME`. A `namespace` label would lose to the one that Prometheus gives to the operator as its target."""
