"""A real Prometheus in the cluster: what the chart's PodMonitor and ServiceMonitor ask for, and PromQL for tests.

It answers nobody without a password, as it does wherever it is shared.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from e2e.api import Object
from e2e.cluster import Cluster

NAMESPACE = "monitoring"
NAME = "prometheus"
PORT = 9090
ADDRESS = f"http://{NAME}.{NAMESPACE}:{PORT}"
"""As pods reach it."""
USER = "keda"
PASSWORD = "sesame"
HASH = "$2b$04$zVCva140K/7qUISiDUmMDOf3YGlh5ge6lDmUFBInw/RPbSC.1UjAe"
"""The password as `basic_auth_users` takes it, by bcrypt."""
SCRAPE_SECONDS = 2
PORTS = {"pagoda-engine": "http", "pagoda": "health"}
"""The pods' label app.kubernetes.io/name -> the port that the chart's monitor scrapes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer, as it is now."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """Ready when the constructor returns, a pod until the cluster ends; scrapes the pods of all namespaces."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        folder = cluster.folder / NAME
        folder.mkdir()
        self._configuration = folder / "prometheus.yml"
        self._configuration.write_text(yaml.safe_dump(_configuration()))
        (folder / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {USER: HASH}}))
        self._targets = folder / "targets.json"
        self._found: dict[str, list[Object]] = {}
        cluster.follow("/api/v1/pods", self._pod_changed)
        cluster.apply(*_objects(folder))
        cluster.kubectl("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=60s")
        (pod,) = cluster.objects("pods", "-n", NAMESPACE, "-l", f"app={NAME}")
        self.url = f"http://{pod['status']['podIP']}:{PORT}"
        """As this machine reaches it."""
        cluster.eventually(self._is_ready, "Prometheus is ready")

    def query(self, promql: str) -> list[Sample]:
        """The instant vector that `promql` is now. Raises ValueError with Prometheus' words where it can't be read."""
        body = urllib.parse.urlencode({"query": promql}).encode()
        try:
            found = json.loads(self._ask("/api/v1/query", body))["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from None
        if found["resultType"] != "vector":
            raise ValueError(f"{promql} is a {found['resultType']}; it must be an instant vector")
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def eventually(self, promql: str, *, seconds: float = 30) -> list[Sample]:
        """The answer, once it holds a sample."""
        return self._cluster.eventually(lambda: self.query(promql), f"{promql} has a sample", seconds=seconds)

    @contextmanager
    def blind(self) -> Iterator[None]:
        """While the context is open nothing that it scrapes is kept, so that every series ends."""
        self._configure(metric_relabel_configs=[{"source_labels": ["__name__"], "regex": ".+", "action": "drop"}])
        try:
            yield
        finally:
            self._configure()

    def _configure(self, **job: Any) -> None:
        self._configuration.write_text(yaml.safe_dump(_configuration(**job)))
        self._ask("/-/reload", b"")

    def _is_ready(self) -> bool:
        try:
            return bool(self._ask("/-/ready"))
        except urllib.error.URLError:
            return False

    def _ask(self, path: str, body: bytes | None = None) -> str:
        """The text of the answer; a body is POSTed. Raises URLError."""
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(self.url + path, body, {"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def _pod_changed(self, pod: Object, gone: bool) -> None:
        """Tell Prometheus of the targets, which it reads anew when the file is another one."""
        before = self._found.get(pod["metadata"]["uid"], [])
        now = [] if gone else targets(pod)
        if now != before or not self._targets.exists():
            self._found[pod["metadata"]["uid"]] = now
            fresh = self._targets.with_suffix(".new")
            fresh.write_text(json.dumps([target for found in self._found.values() for target in found]))
            fresh.rename(self._targets)


def targets(pod: Object) -> list[Object]:
    """What is to be scraped of a pod, in the words of `file_sd_configs`.

    This is what the Prometheus operator makes of the monitors; Debian's Prometheus is built without Kubernetes' service
    discovery, so the harness stands in for it. The labels namespace, pod and container are that operator's.
    """
    port = PORTS.get(pod["metadata"].get("labels", {}).get("app.kubernetes.io/name", ""))
    status = pod.get("status", {})
    if port is None or "podIP" not in status or status.get("phase") in ("Succeeded", "Failed"):
        return []
    return [
        {
            "targets": [f"{status['podIP']}:{one['containerPort']}"],
            "labels": {
                "namespace": pod["metadata"]["namespace"],
                "pod": pod["metadata"]["name"],
                "container": container["name"],
            },
        }
        for container in pod["spec"]["containers"]
        for one in container.get("ports", ())
        if one.get("name") == port
    ]


def _configuration(**job_changes: Any) -> Object:
    pace = {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}
    job = {"job_name": "pagoda", "file_sd_configs": [{"files": ["targets.json"]}], **job_changes}
    return {"global": pace, "scrape_configs": [job]}


def _objects(folder: Path) -> list[Object]:
    labels = {"app": NAME}
    metadata = {"name": NAME, "namespace": NAMESPACE}
    container = {
        "name": NAME,
        "image": "prom/prometheus",
        "command": [
            "prometheus",
            "--config.file=/etc/prometheus/prometheus.yml",
            "--web.config.file=/etc/prometheus/web.yml",
            "--web.enable-lifecycle",
            "--storage.tsdb.path=/prometheus",
            f"--web.listen-address=:{PORT}",
        ],
        "ports": [{"name": "web", "containerPort": PORT}],
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "configuration", "mountPath": "/etc/prometheus"},
            {"name": "data", "mountPath": "/prometheus"},
        ],
    }
    volumes = [{"name": "configuration", "hostPath": {"path": str(folder)}}, {"name": "data", "emptyDir": {}}]
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
            "containers": [container],
            "volumes": volumes,
        },
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "web", "port": PORT, "targetPort": "web"}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
    ]
