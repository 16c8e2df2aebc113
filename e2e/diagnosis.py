"""What one wants to see when a scenario failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.cluster import Cluster, KubectlError
from e2e.release import Release

FAILED = pytest.StashKey[bool]()
TAIL_LINES = 60
LOOKS = (
    ("services", ("get", "inferenceservices.pagoda.dev", "-o", "yaml")),
    ("pods", ("get", "pods", "-o", "wide")),
    ("pod states", ("get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name}{': '}{.status}{'\\n'}{end}")),
    ("children", ("get", "deployments,replicasets,services,endpointslices,persistentvolumeclaims,pdb")),
    ("scalers", ("get", "horizontalpodautoscalers", "-o", "yaml")),
    ("events", ("get", "events", "--sort-by=.lastTimestamp")),
)


def tell_if_failed(test: pytest.Item, cluster: Cluster, namespace: str, release: Release) -> None:
    """Print it all, where the test failed."""
    if test.stash.get(FAILED, False):
        for title, text in sections(cluster, namespace, release):
            print(f"--- {title}\n{text}\n")


def sections(cluster: Cluster, namespace: str, release: Release) -> Iterator[tuple[str, str]]:
    """(title, text) pairs for pytest's report."""
    for title, command in LOOKS:
        try:
            yield title, cluster.kubectl(*command, "-n", namespace, seconds=20)
        except KubectlError as error:
            yield title, str(error)
    for record in cluster.records(namespace):
        for container in ("model", "engine"):
            if text := record.log(container):
                yield f"log of {record.name}, {container}", _tail(text)
    yield "log of the operator", _tail(release.log())


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])
