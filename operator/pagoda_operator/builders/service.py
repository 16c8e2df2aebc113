"""The Service that clients talk to: port 80 of a stable name, the engine's port behind it."""

from __future__ import annotations

from pagoda_engine.contract import ENGINE_PORT_NAME
from pagoda_operator.api.names import Object
from pagoda_operator.builders.metadata import metadata, selector
from pagoda_operator.builders.workload import Workload


def service(workload: Workload) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(workload, "engine"),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(workload.name),
            "ports": [{"name": ENGINE_PORT_NAME, "port": 80, "targetPort": ENGINE_PORT_NAME, "protocol": "TCP"}],
        },
    }
