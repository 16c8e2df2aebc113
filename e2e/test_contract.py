"""The contract of every `Cluster`, kept by the operator's client with a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest
from e2e.api import Object
from e2e.cluster import Cluster
from tests.operator.cluster.cluster_contract import CONTRACT, CONTRACT_OF_TWO

from pagoda_operator.cluster.connection import connect
from pagoda_operator.cluster.kubernetes import KubernetesCluster
from pagoda_operator.cluster.resources import Resource

pytestmark = pytest.mark.usefixtures("unattended")

Promise = Callable[..., Coroutine[Any, Any, None]]


class ActingAs(KubernetesCluster):
    """The same cluster, written to by another field manager."""

    manager = "kubectl"

    async def _call(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        **rest: Any,
    ) -> Object:
        if query and "fieldManager" in query:
            query = {**query, "fieldManager": self.manager}
        return await super()._call(verb, resource, method, path, query, body, **rest)


@pytest.fixture
def namespace(bare_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Deleted without waiting: nothing runs in it."""
    name = request.node.callspec.id.replace("_", "-")[:60].strip("-")
    bare_cluster.make_namespace({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    bare_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def client(bare_cluster: Cluster) -> AsyncIterator[KubernetesCluster]:
    cluster = KubernetesCluster(await connect(str(bare_cluster.control_plane.kubeconfig)))
    yield cluster
    await cluster.close()


@pytest.fixture
async def other(bare_cluster: Cluster) -> AsyncIterator[KubernetesCluster]:
    cluster = ActingAs(await connect(str(bare_cluster.control_plane.kubeconfig)))
    yield cluster
    await cluster.close()


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
async def test_contract(client: KubernetesCluster, namespace: str, promise: Promise) -> None:
    """Each promise, in words the function's own name."""
    await promise(client, namespace)


@pytest.mark.parametrize("promise", CONTRACT_OF_TWO, ids=lambda promise: promise.__name__)
async def test_contract_of_two_managers(
    client: KubernetesCluster, other: KubernetesCluster, namespace: str, promise: Promise
) -> None:
    """Each promise about fields of two managers."""
    await promise(client, other, namespace)
