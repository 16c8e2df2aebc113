"""A cluster in which nothing happens costs nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from e2e.audit import requests
from e2e.release import Release
from e2e.services import Services, service

SERVICES = 20
WATCHED_SECONDS = 60.0


@pytest.mark.timeout(900)
def test_a_steady_cluster_of_20_services_is_never_written_to(services: Services, release: Release) -> None:
    """Real engines behind all of them; in a minute the operator's user writes its Lease and nothing else."""
    names = [f"steady-{number}" for number in range(SERVICES)]
    services.cluster.apply(*(service(name, services.namespace, engine={"maxModelLen": 256}) for name in names))
    for name in names:
        services.wait_ready(name, seconds=600)
    # The last that a status has to tell; steady is what comes after it.
    services.cluster.eventually(
        lambda: all("queue" in services.status(name) for name in names), "every status has its queue"
    )
    start = datetime.now(UTC)
    time.sleep(WATCHED_SECONDS)
    calls = requests(services.cluster.control_plane.audit_log, release.user)
    writes = [call for call in calls if call.time >= start and call.is_write]
    assert [call for call in writes if call.resource == "leases"], "the operator was alive"
    assert [str(call) for call in writes if call.resource != "leases"] == []
