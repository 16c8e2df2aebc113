"""What the HPA controller does, by the API server's audit log."""

from __future__ import annotations

from datetime import datetime

from e2e.audit import requests
from e2e.cluster import Cluster

USER = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"


def rescaled(cluster: Cluster, since: datetime) -> list[str]:
    """What it wrote of anybody's replicas since then."""
    calls = requests(cluster.control_plane.audit_log, USER, since)
    return [str(call) for call in calls if call.is_write and call.resource.endswith("/scale")]
