"""The ServiceAccount of engine pods, which holds no rights and no token."""

from __future__ import annotations

from pagoda_operator.api.names import Object
from pagoda_operator.builders.metadata import metadata
from pagoda_operator.builders.workload import Workload


def service_account(workload: Workload) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(workload, "engine"),
        "automountServiceAccountToken": False,
    }
