"""Pagoda in the cluster: the chart as a user installs it, in values that suit a machine without a registry."""

from __future__ import annotations

import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from e2e import monitoring
from e2e.api import Object
from e2e.cluster import Cluster

CHART = Path(__file__).parent.parent / "charts" / "pagoda"
NAMESPACE = "pagoda-system"
NAME = "pagoda"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PORT = 8080
"""Of the operator's health, metrics and activation."""
LEADS = 'leader_election_master_status{name="inferenceservice"} 1.0'
DRAIN_DELAY = 6
"""Seconds; kube-proxy's part is done in one hop here, so endpoints are forgotten sooner than in a big cluster. But the
EndpointSlice controller looks again after 1 and 2 s where its cache was behind."""


class Release:
    """The release, installed by `install`; its operator runs as a pod with the chart's own ServiceAccount."""

    def __init__(self, cluster: Cluster, hub: str) -> None:
        self._cluster = cluster
        self._hub = hub

    @property
    def user(self) -> str:
        """The operator's name to the API server."""
        return f"system:serviceaccount:{NAMESPACE}:{NAME}"

    def values(self) -> Object:
        proxy = [
            {"name": "HTTPS_PROXY", "value": self._cluster.egress.url},
            {"name": "NO_PROXY", "value": f"{self._cluster.network.gateway},127.0.0.1,localhost"},
        ]
        return {
            "engine": {"env": proxy, "drainDelay": DRAIN_DELAY, "shutdownTimeout": 30},
            "env": proxy,
            "hfEndpoint": self._hub,
            "prometheusAddress": monitoring.ADDRESS,
        }

    def install(self, **changes: Any) -> None:
        """`helm upgrade --install` with the usual values but for `changes`, then wait for the operator."""
        self._cluster.make_namespace(namespace(NAMESPACE))
        values = self._cluster.folder / "values.yaml"
        values.write_text(yaml.safe_dump(self.values() | changes))
        self._cluster.helm("upgrade", "--install", NAME, str(CHART), "-n", NAMESPACE, "-f", str(values))
        self._cluster.kubectl("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=120s")

    def settings(self) -> str:
        """The operator's settings file, as the chart has it."""
        return str(self._cluster.get("configmap", f"{NAME}-settings", "-n", NAMESPACE)["data"]["settings.yaml"])

    def scale(self, replicas: int) -> None:
        """Run so many operators, and wait until it is so."""
        self._cluster.kubectl("scale", "deployment", NAME, "-n", NAMESPACE, f"--replicas={replicas}")
        if replicas:
            self._cluster.kubectl("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=120s")
        else:
            self._cluster.eventually(lambda: not self.pods(), "no operator runs")

    def pods(self) -> list[Object]:
        return self._cluster.objects("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=operator")

    def leader(self) -> str:
        """The name of the operator's pod that says that it leads; empty where none does."""
        for pod in self.pods():
            with suppress(OSError, KeyError):  # it has no address yet, or has just been killed
                url = f"http://{pod['status']['podIP']}:{PORT}/metrics"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if LEADS in answer.read().decode().splitlines():
                        return str(pod["metadata"]["name"])
        return ""

    def log(self) -> str:
        """Of all operator pods so far, the oldest first."""
        return "".join(record.log("operator") for record in self._cluster.records(NAMESPACE))


def namespace(name: str) -> Object:
    """A namespace in which the API server admits only pods of the `restricted` Pod Security Standard."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
