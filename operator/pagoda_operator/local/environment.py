"""The environment of a container: literals, the downward API and Secrets, in the order that the pod gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pagoda_operator.api.names import Object
from pagoda_operator.local.expansion import expand

Secrets = Callable[[str, str], str | None]
"""(Secret's name, key) -> value, or None where there is no such Secret or key."""

_INDEXED = re.compile(r"metadata\.(?P<map>labels|annotations)\['(?P<key>[^']+)'\]")


class ConfigError(Exception):
    """The container can't be made from its spec now; a kubelet says `CreateContainerConfigError` and tries again."""


def container_variables(container: Object, pod: Object, *, pod_ip: str, secrets: Secrets) -> dict[str, str]:
    """The variables that the pod sets, `$(VAR)` expanded by those before them; not what the machine gives.

    Raises ConfigError for a missing Secret or key that is not optional, and for a source that does not exist here.
    """
    variables: dict[str, str] = {}
    for entry in container.get("env", ()):
        name, source = entry["name"], entry.get("valueFrom")
        if not source:
            variables[name] = expand(str(entry.get("value", "")), variables)
        elif "fieldRef" in source:
            variables[name] = _field(source["fieldRef"]["fieldPath"], pod, pod_ip)
        elif "secretKeyRef" in source:
            value = _secret(source["secretKeyRef"], secrets)
            if value is not None:
                variables[name] = value
        else:
            raise ConfigError(f"env {name} comes from {next(iter(source))}; here it can be fieldRef or secretKeyRef")
    return variables


def _secret(reference: Mapping[str, Any], secrets: Secrets) -> str | None:
    value = secrets(reference["name"], reference["key"])
    if value is None and not reference.get("optional"):
        raise ConfigError(f"secret {reference['name']!r} with key {reference['key']!r} not found")
    return value


def _field(path: str, pod: Object, pod_ip: str) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    fields: dict[str, Any] = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", "default"),
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": pod.get("status", {}).get("hostIP", pod_ip),
    }
    if path in fields:
        return str(fields[path])
    if match := _INDEXED.fullmatch(path):
        return str(metadata.get(match["map"], {}).get(match["key"], ""))
    raise ConfigError(f"fieldRef {path!r} is unknown; known are {sorted(fields)} and one label or annotation")
