"""An upgrade of Pagoda is no reason to restart a model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.release import Release
from e2e.services import KIND, Services, service

NEWER = "pagoda-engine:9.9.9"


@pytest.fixture
def upgraded(release: Release) -> Iterator[Release]:
    """The release, to be upgraded by a test; afterwards it is as all others expect it."""
    yield release
    release.install()


def test_an_upgrade_of_the_chart_replaces_no_pod_until_asked(services: Services, upgraded: Release) -> None:
    """Another engine image, other environment, other drain times: told in UpToDate, and taken when asked for."""
    cluster, place = services.cluster, ("-n", services.namespace)
    cluster.apply(service("tiny", services.namespace))
    services.wait_ready("tiny")
    template = cluster.get("deployment", "tiny", *place)["spec"]["template"]
    (before,) = [pod["metadata"]["uid"] for pod in services.pods("tiny")]
    engine = upgraded.values()["engine"]
    env = [*engine["env"], {"name": "NEW_SETTING", "value": "secret"}]
    upgraded.install(engine=engine | {"image": NEWER, "env": env, "drainDelay": 4})
    condition = services.wait("tiny", "UpToDate", "False")
    assert condition["reason"] == "UpgradeAvailable"
    assert NEWER in condition["message"]
    assert "secret" not in condition["message"]
    assert services.condition("tiny", "Ready")["status"] == "True"
    assert cluster.get("deployment", "tiny", *place)["spec"]["template"] == template
    assert [pod["metadata"]["uid"] for pod in services.pods("tiny")] == [before]

    cluster.kubectl("annotate", KIND, "tiny", *place, "pagoda.dev/upgrade=9.9.9")
    services.wait("tiny", "UpToDate", "True")
    cluster.eventually(
        lambda: before not in [pod["metadata"]["uid"] for pod in services.pods("tiny")], "the pod is replaced"
    )
    services.wait_ready("tiny")
    assert services.pods("tiny")[0]["spec"]["containers"][0]["image"] == NEWER
