"""external.metrics.k8s.io as `pagoda operator` serves it: flags, and the parts put together.

Apart from `commands.operator`, since only who serves it loads what certificates take.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractAsyncContextManager

from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.controller.api_service import ApiServiceKeeper
from pagoda_operator.controller.authorities import AuthorityStore
from pagoda_operator.controller.serving_identity import ServingIdentity
from pagoda_operator.core.api_service import Backend
from pagoda_operator.scaling.external_metrics import serve_external_metrics
from pagoda_operator.scaling.load import Loads


def keeper(options: argparse.Namespace, cluster: Cluster, namespace: str) -> ApiServiceKeeper:
    """For the operator in `namespace`."""
    name = options.external_metrics_service
    serving = ServingIdentity(cluster, AuthorityStore(cluster, namespace, name), f"{name}.{namespace}.svc")
    return ApiServiceKeeper(cluster, serving, Backend(namespace, name), options.external_metrics_owner)


def server(options: argparse.Namespace, loads: Loads, serving: ServingIdentity) -> AbstractAsyncContextManager[int]:
    """Serves on `--external-metrics-port` while it is open; gives the port. Raises OSError."""
    host, port = options.health_host, options.external_metrics_port
    return serve_external_metrics(host, port, loads, serving.tls, lambda: serving.front_proxy)
