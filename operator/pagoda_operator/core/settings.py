"""What the administrator decides once for all services; the chart's values end here, through a YAML or JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from pagoda_engine.contract import ENGINE_PORT
from pagoda_operator.api.names import Object

GPU_TOLERATION: Final[Object] = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Operator-wide settings; every one has a default that works in a cluster. Times are seconds.

    engine_image        image of both containers of an engine pod; `spec.engine.image` overrides it
    bind_host           address that engines listen on: `0.0.0.0` in a cluster, `$(POD_IP)` in local mode
    engine_port         port that engines listen on
    service_url         how a client reaches a service; may hold {name} and {namespace}
    drain_delay         how long a terminating pod still accepts requests, until every proxy has forgotten it
    shutdown_timeout    how long a terminating pod then waits for running requests, at most: it ends with the last one.
                        By default a pod's whole grace period is 600 s, the longest that cluster-autoscaler grants
    run_as_user         user, group and fsGroup of engine pods
    engine_env          env entries put on every container of every engine pod (a proxy's address, HF_ENDPOINT, ...)
    tolerations         put on every pod that asks for GPUs, before those of the spec
    prometheus_address  Prometheus that scrapes the engines, as KEDA reaches it; empty: KEDA asks no Prometheus
    prometheus_authentication   name of a ClusterTriggerAuthentication by which KEDA asks it; empty: without
    prometheus_auth_modes       what KEDA takes from that, its `authModes`: bearer, basic, oauth, tls, custom
    scaler_address      host:port at which KEDA reaches this operator's external-push scaler; empty: it has none
    external_metrics    whether the operator serves external.metrics.k8s.io, for clusters where nobody else does
    local               no cluster: no nodes, no scaler
    """

    engine_image: str = "pagoda-engine:0.1.0"
    bind_host: str = "0.0.0.0"
    engine_port: int = ENGINE_PORT
    service_url: str = "http://{name}.{namespace}/v1"
    drain_delay: float = 10.0
    shutdown_timeout: float = 580.0
    run_as_user: int = 1000
    engine_env: tuple[Object, ...] = ()
    tolerations: tuple[Object, ...] = (GPU_TOLERATION,)
    prometheus_address: str = ""
    prometheus_authentication: str = ""
    prometheus_auth_modes: tuple[str, ...] = ("bearer",)
    scaler_address: str = ""
    external_metrics: bool = False
    local: bool = False

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Settings:
        """Settings from camelCase keys (`engineImage`). Raises ValueError naming what can't be used."""
        fields = {_camel(f.name): f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, value in document.items():
            if key not in fields:
                raise ValueError(f"settings: unknown key {key!r}; known are {', '.join(sorted(fields))}")
            default = fields[key].default
            accepted = (
                (list, tuple)
                if isinstance(default, tuple)
                else (int, float)
                if isinstance(default, float)
                else type(default)
            )
            if not isinstance(value, accepted) or (isinstance(value, bool) and not isinstance(default, bool)):
                raise ValueError(f"settings: {key} is {value!r}; it must be a {_kind(default)}")
            values[fields[key].name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read a YAML or JSON file. Raises OSError where it can't be read, ValueError where it can't be used."""
        document = yaml.safe_load(path.read_text())
        if not isinstance(document, dict):
            raise ValueError(f"settings: {path} holds a {type(document).__name__}; it must be a mapping of settings")
        return cls.from_document(document)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _kind(default: object) -> str:
    names = {str: "string", bool: "boolean", int: "whole number", float: "number", tuple: "list"}
    return names[type(default)]
