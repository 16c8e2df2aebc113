"""A change of the spec under load: replaced pod by pod, and no request fails."""

from __future__ import annotations

from e2e.load import Load
from e2e.services import KIND, Services, service

FEWEST_REQUESTS = 20


def test_a_rolling_update_fails_no_request(services: Services) -> None:
    """Clients with open connections, streams among them, ask through an update and a scale-in; all is answered."""
    services.cluster.apply(service("tiny", services.namespace, replicas=2, engine={"maxModelLen": 512}))
    services.wait_ready("tiny", 2)
    before = {pod["metadata"]["uid"] for pod in services.pods("tiny")}
    with (
        services.cluster.proxy(services.namespace, "tiny") as url,
        Load(url, services.status("tiny")["model"]) as load,
    ):
        services.cluster.eventually(lambda: len(load.done) >= FEWEST_REQUESTS, "the load flows")
        patch = '{"spec": {"engine": {"maxModelLen": 640}}}'
        services.cluster.kubectl("patch", KIND, "tiny", "-n", services.namespace, "--type=merge", "-p", patch)
        services.wait_ready("tiny", 2, seconds=240)
        after = {pod["metadata"]["uid"] for pod in services.pods("tiny")}
        assert not before & after, "every pod is of the new spec"
        services.cluster.kubectl("scale", "infsvc", "tiny", "--replicas=1", "-n", services.namespace)
        services.wait_ready("tiny", 1)
        total = len(load.done)
        services.cluster.eventually(lambda: len(load.done) >= total + FEWEST_REQUESTS, "the load still flows")
    assert load.failures == [], f"{len(load.done)} requests ended well"
    print(f"{len(load.done)} requests, none failed")
