"""InferenceServices as a user meets them: applied, looked at, asked over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from e2e.api import Object
from e2e.cluster import Cluster
from e2e.convergence import CHILDREN, PATHS

KIND = "inferenceservices.pagoda.dev"
TINY = "hf://tests/tiny"
SELECTOR = "pagoda.dev/service"
READY_SECONDS = 120.0
DOWNLOAD_SECONDS = 240.0
"""Where the model may have to come from a package index first."""


def service(name: str, namespace: str, uri: str = TINY, **spec: Any) -> Object:
    return {
        "apiVersion": "pagoda.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": uri}, "accelerator": "cpu", **spec},
    }


class Services:
    """The services of one namespace.

    Looks are for waiting loops, and so are no processes: at five looks a second kubectl would take half a core.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def get(self, name: str) -> Object:
        """The service. Raises ApiError."""
        return self._read(f"{PATHS['InferenceService']}/{name}")

    def status(self, name: str) -> Object:
        return dict(self.get(name).get("status", {}))

    def condition(self, name: str, kind: str) -> Object:
        """The condition of that type, or an empty one."""
        found = [c for c in self.status(name).get("conditions", ()) if c["type"] == kind]
        return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}

    def wait(self, name: str, kind: str, status: str, *, seconds: float = READY_SECONDS) -> Object:
        """The condition, once it has that status."""

        def look() -> Object | None:
            condition = self.condition(name, kind)
            return condition if condition["status"] == status else None

        return self.cluster.eventually(look, f"{name} has {kind}={status}", seconds=seconds)

    def told(self, name: str, kind: str, reason: str, words: str = "", *, seconds: float = READY_SECONDS) -> Object:
        """The condition, once it has that reason and those words: of one cause and the next the reason may be the
        same, and of one status and the next the cause may be another."""

        def look() -> Object | None:
            condition = self.condition(name, kind)
            return condition if condition["reason"] == reason and words in condition["message"] else None

        return self.cluster.eventually(look, f"{name} has {kind} by {reason}, with {words!r}", seconds=seconds)

    def wait_ready(self, name: str, replicas: int = 1, *, seconds: float = READY_SECONDS) -> None:
        """Until the latest spec is served by that many replicas, and no other pod is left."""

        def look() -> bool:
            found = self.get(name)
            status = found.get("status", {})
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            return current and ready and status.get("readyReplicas", 0) == replicas == len(self.pods(name))

        self.cluster.eventually(look, f"{name} is Ready with {replicas} replicas", seconds=seconds)

    def pods(self, name: str) -> list[Object]:
        return self._of("Pod", name)

    def children(self, name: str) -> set[str]:
        """`kind/name` of each child that exists."""
        return {f"{kind}/{obj['metadata']['name']}" for kind in CHILDREN for obj in self._of(kind, name)}

    def log(self, name: str, container: str = "engine") -> str:
        """Of all pods of the service so far."""
        return "".join(record.log(container) for record in self.cluster.records(self.namespace, name))

    def _of(self, kind: str, name: str) -> list[Object]:
        """The objects of a kind that are labelled as the service's."""
        return list(self._read(PATHS[kind], labelSelector=f"{SELECTOR}={name}")["items"])

    def _read(self, path: str, **params: str) -> Object:
        return self.cluster.run(self.cluster.api.get(path.format(self.namespace), **params))


def chat(url: str, model: str, question: str, *, max_tokens: int = 16, seconds: float = 120) -> str:
    """The answer to one question, greedily. Raises HTTPError with the refusal's body as its reason."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"])
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code}: {error.read().decode(errors='replace')}") from error
