"""Replicas that go: none that still loads is thrown away, the one that goes has the least work, and ends it.

However long that takes, within the pod's grace period: a pod on its way out is waited for, and told of, until its last
stream is at its end.
"""

from __future__ import annotations

import time
import urllib.request
from http.client import HTTPException

import pytest
from e2e.api import Object
from e2e.held_stream import ANSWER, HeldStream
from e2e.load import Load
from e2e.services import Services, service
from e2e.streams import TIMEOUT_SECONDS, TOKENS, Streams

from pagoda_engine.contract import ENGINE_PORT, METRICS_PATH, Metric

COST = "controller.kubernetes.io/pod-deletion-cost"
LONG_GRACE, SHORT_GRACE = 600, 5
BUSY = 6
"""Requests at once of the pod that is to stay, each of its own length: more than the other's one run at any moment."""


def scale(services: Services, replicas: int) -> None:
    """As a scaler does."""
    services.cluster.kubectl("scale", "infsvc", "tiny", f"--replicas={replicas}", "-n", services.namespace)


def names(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def url(pod: Object) -> str:
    return f"http://{pod['status']['podIP']}:{ENGINE_PORT}"


def running(pod: Object) -> float:
    """The requests that a pod's engine runs."""
    with urllib.request.urlopen(f"{url(pod)}{METRICS_PATH}", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(f"{Metric.RUNNING}{{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def held(pod: Object, model: str) -> HeldStream:
    return HeldStream(pod["status"]["podIP"], ENGINE_PORT, model)


def is_waited_for(services: Services, pod: Object) -> bool:
    """Whether `kubectl describe` tells that this pod is on its way out, and what it has left to do."""
    return f"{pod['metadata']['name']} (1 request left)" in services.condition("tiny", "WorkloadReady")["message"]


def cost(pod: Object) -> int:
    """What it costs to delete the pod; one without the annotation had no work at that moment."""
    return int(pod["metadata"].get("annotations", {}).get(COST, 0))


def scaled_in(services: Services) -> list[str]:
    """The messages of the Events that tell of a scale-in."""
    selector = "involvedObject.name=tiny,reason=ScaledIn"
    events = services.cluster.objects("events", "-n", services.namespace, "--field-selector", selector)
    return [event["message"] for event in events]


def test_a_scale_in_spares_what_loads_and_what_works(services: Services) -> None:
    """A sag while a replica loads costs nothing; then of two replicas the less busy one goes, stream by stream."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 3}
    # With a grace period of minutes, only an end that follows the last stream comes within this test's patience.
    services.cluster.apply(
        service("tiny", services.namespace, autoscaling=autoscaling, terminationGracePeriodSeconds=LONG_GRACE)
    )
    services.wait_ready("tiny")
    (first,) = services.pods("tiny")

    scale(services, 2)
    (loading,) = services.cluster.eventually(lambda: names(services.pods("tiny")) - names([first]), "a second one")
    with services.cluster.standing_still(loading):
        scale(services, 1)
        services.cluster.eventually(
            lambda: "more stay until no replica is loading" in services.status("tiny")["scaling"]["reason"], "it stays"
        )
        scale(services, 2)
    services.wait_ready("tiny", 2)
    assert names(services.pods("tiny")) == {*names([first]), loading}, "the one that loaded was kept"

    model = services.status("tiny")["model"]
    (first, second) = sorted(services.pods("tiny"), key=lambda pod: pod["metadata"]["name"] == loading)
    # Plain answers: of a stream whose client falls behind the engine has nothing left to run.
    work = Load(url(second), model, BUSY, TOKENS, shorter=TOKENS // 8, seconds=TIMEOUT_SECONDS, streams=False)
    with work as busy, Streams(url(first), model) as quiet:
        services.cluster.eventually(lambda: running(second) == BUSY and running(first) == 1, "both have work")
        scale(services, 1)
        leaving = services.cluster.eventually(
            lambda: [pod for pod in services.pods("tiny") if "deletionTimestamp" in pod["metadata"]], "one is to go"
        )
        asked = time.monotonic()
        assert names(leaving) == names([first]), "the older one would have stayed, had it not the least work"
        services.cluster.eventually(
            lambda: names(services.pods("tiny")) == names([second]), "it is gone", seconds=2 * TIMEOUT_SECONDS
        )
        (staying,) = services.pods("tiny")
    assert (quiet.failures, busy.failures) == ([], [])
    assert quiet.ended[-1] > asked, "it ended a stream on its way out"
    assert cost(staying) > cost(leaving[0])

    services.wait_ready("tiny")
    scaling = services.status("tiny")["scaling"]
    assert [(decision["from"], decision["to"]) for decision in scaling["lastDecisions"]] == [(2, 1), (1, 2)]
    assert names([first, second]) == {start["pod"] for start in scaling["coldStarts"]}
    (told,) = services.cluster.eventually(lambda: scaled_in(services), "an Event tells of it")
    assert told.startswith("from 2 to 1 replicas: HorizontalPodAutoscaler asks for 1; ")
    assert told.endswith(" running")

    outlives_its_pods_roll_out(services, staying, model)
    (last,) = services.pods("tiny")
    is_given_up_at_the_grace_period(services, last, model)


def outlives_its_pods_roll_out(services: Services, pod: Object, model: str) -> None:
    """A stream takes longer than the grace period that the roll-out brings: the old pod stays, is told, and ends it."""
    with held(pod, model) as stream:
        change = f'{{"spec": {{"terminationGracePeriodSeconds": {SHORT_GRACE}}}}}'
        services.cluster.kubectl("patch", "infsvc", "tiny", "-n", services.namespace, "--type=merge", "-p", change)
        services.cluster.eventually(
            lambda: is_waited_for(services, pod) and services.condition("tiny", "Ready")["status"] == "True",
            "the new one serves, and it is told what the old one waits for",
        )
        began = time.monotonic()
        services.cluster.eventually(lambda: time.monotonic() - began > SHORT_GRACE, "others would be given up by now")
        assert is_waited_for(services, pod)
        assert services.condition("tiny", "Ready")["status"] == "True"
        assert stream.rest() == ["length"] * ANSWER["n"]
        services.wait_ready("tiny")


def is_given_up_at_the_grace_period(services: Services, pod: Object, model: str) -> None:
    """A client that never reads on holds its pod no longer than that, also where the whole service is deleted."""
    with held(pod, model) as stream:
        services.cluster.kubectl("delete", "infsvc", "tiny", "-n", services.namespace)
        services.cluster.eventually(lambda: not services.pods("tiny"), "the pod is gone")
        with pytest.raises((OSError, HTTPException)):
            stream.rest()
