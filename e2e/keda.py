"""KEDA in the cluster, by its own manifests: operator and metrics adapter as pods, roles, kinds, its API group.

What differs from its release: programs that were built here instead of images, a certificate that is made beforehand
instead of rotated, and probes that do not wait 20 s before they ask.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml
from e2e.api import Object
from e2e.cluster import Cluster

NAMESPACE: Final = "keda"
SERVICES: Final = ("keda-operator", "keda-metrics-apiserver")
CERTIFICATES: Final = "kedaorg-certs"
FOLDERS: Final = ("general", "service_account", "rbac", "manager", "metrics-server")
"""Of its `config` folder: all but webhooks and the kinds, which are applied first."""
SCALED_OBJECTS: Final = "scaledobjects.keda.sh"
APPLY: Final = ("apply", "--server-side", "-f")
"""KEDA's kinds are larger than the annotation that a plain apply writes may be."""


class Keda:
    """`install` returns once scalers work; `remove` leaves nothing, so that another may own external.metrics.k8s.io."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._programs = cluster.binaries.keda
        self._crds = str(self._programs.crds)
        self._config = self._programs.crds.parents[1]

    def install(self) -> None:
        self._cluster.kubectl(*APPLY, self._crds)
        authority, secret = self._certificate()
        manifests = [self._fitted(one, authority) for one in _manifests(self._config)]
        self._cluster.kubectl(*APPLY, "-", text=yaml.safe_dump_all([*manifests, secret]))
        for name in SERVICES:
            self._cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=90s")
        self._cluster.kubectl(
            *("wait", "apiservice/v1beta1.external.metrics.k8s.io", "--for=condition=Available", "--timeout=60s")
        )

    def remove(self) -> None:
        """The kinds first: KEDA's operator still has to take its finalizers off what is left of them."""
        self._cluster.kubectl("delete", "-f", self._crds, "--timeout=60s")
        text = yaml.safe_dump_all(_manifests(self._config))
        self._cluster.kubectl("delete", "--wait=false", "-f", "-", text=text)

    def log(self) -> str:
        return "".join(record.log(name) for name in SERVICES for record in self._cluster.records(NAMESPACE, name))

    def _fitted(self, manifest: Object, authority: bytes) -> Object:
        """A manifest in the form that suits this cluster."""
        if manifest["kind"] == "APIService":
            manifest["spec"]["caBundle"] = base64.b64encode(authority).decode()
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            # An image would name its user.
            pod["securityContext"] |= {"runAsUser": 1000, "runAsGroup": 1000}
            (container,) = pod["containers"]
            is_operator = manifest["metadata"]["name"] == "keda-operator"
            container["command"] = [str(self._programs.operator if is_operator else self._programs.adapter)]
            container["args"] = [arg for arg in container["args"] if "rotation" not in arg and "leader" not in arg]
            if is_operator:
                container["args"].append("--cert-dir=/certs")
            container["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1}
        return manifest

    def _certificate(self) -> tuple[bytes, Object]:
        """A certificate that is its own authority, for both Services; and the Secret that both pods mount."""
        key, certificate = self._cluster.folder / "keda.key", self._cluster.folder / "keda.crt"
        hosts = [f"{name}.{NAMESPACE}.svc{domain}" for name in SERVICES for domain in ("", ".cluster.local")]
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-subj", "/CN=keda", "-addext", f"subjectAltName={','.join(f'DNS:{host}' for host in hosts)}"),
                *("-days", "2", "-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        files = {"ca.crt": certificate, "tls.crt": certificate, "tls.key": key}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": CERTIFICATES, "namespace": NAMESPACE},
            "data": {name: base64.b64encode(file.read_bytes()).decode() for name, file in files.items()},
        }
        return certificate.read_bytes(), secret


def _manifests(config: Path) -> Iterator[Object]:
    """The objects of KEDA's `config` folder, the namespace first."""
    for folder in FOLDERS:
        for file in sorted((config / folder).glob("*.yaml")):
            if file.name != "kustomization.yaml":
                yield from (one for one in yaml.safe_load_all(file.read_text()) if one)
