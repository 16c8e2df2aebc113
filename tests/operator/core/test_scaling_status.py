"""`kubectl describe` says how many replicas there are to be, why, and what led there."""

import dataclasses

import pytest

from pagoda_engine.contract import Progress, Stage
from pagoda_operator.api.status import QueueStatus
from pagoda_operator.core.facts import PodReport


def loading(make_pod, uri, name):
    pod = make_pod(name, uri, phase="Running")
    pod["spec"] = {"nodeName": "n"}
    return pod


def scaling(world):
    return world.service["status"]["scaling"]


def test_a_service_of_fixed_replicas_says_who_asks(world):
    world.run()
    assert scaling(world) == {"desired": 1, "reason": "spec.replicas asks for 1"}


def test_a_change_is_a_decision_with_its_occasion(world):
    """The load of that moment is told once; the reason that stands is the same from then on."""
    world.edit(autoscaling={"maxReplicas": 3}).run()
    world.given(load=QueueStatus(waiting=12, running=8)).edit(replicas=3).step()
    reason = "HorizontalPodAutoscaler asks for 3"
    decision = scaling(world)["lastDecisions"][0]
    assert (decision["from"], decision["to"]) == (1, 3)
    assert decision["reason"] == f"{reason}; 12 requests waiting, 8 running"
    assert scaling(world)["reason"] == reason
    before = world.service["status"]
    world.given(load=QueueStatus(waiting=0, running=0)).step()
    assert world.service["status"] == before


def test_replicas_that_are_held_are_explained(world, make_pod, make_ready_pod):
    """Three were wanted, two are asked for, and one of the three still loads: it is kept, and that is said."""
    world.edit(autoscaling={"maxReplicas": 3}, replicas=3).run(3)
    ready = [make_ready_pod(name, world.uri) for name in ("a", "b")]
    for pod in ready:
        pod["spec"] = {"nodeName": "n"}
    world.given(pods=(*ready, loading(make_pod, world.uri, "c"))).deployed(ready=2, replicas=3)
    world.edit(replicas=2).step()
    assert world.child("Deployment")["spec"]["replicas"] == 3
    assert scaling(world)["desired"] == 3
    assert "asks for 2; 1 more stay until no replica is loading" in scaling(world)["reason"]
    assert "lastDecisions" not in scaling(world), "nothing was changed yet"
    assert world.service["status"]["ready"] == "2/3"
    assert world.reason("WorkloadReady") == ("False", "Starting")


def test_while_nothing_can_be_planned_the_last_decision_stands(world):
    world.run().edit(replicas=2).step()
    before = scaling(world)
    world.edit(accelerator="gpu", replicas=3).step()
    assert world.condition("Planned")["status"] == "False"
    assert scaling(world) == before


def test_another_model_takes_another_time(world, make_ready_pod):
    """What was learned of one model's start is not told of the next one's."""
    world.run()
    pod = make_ready_pod("p-0", world.uri)
    pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-02T03:01:30Z"
    world.given(pods=(pod,)).step()
    assert scaling(world)["coldStartSeconds"] == 90
    world.given(pods=()).step()
    assert scaling(world)["coldStartSeconds"] == 90, "it is remembered when the pod is gone"
    world.given(model=dataclasses.replace(world.facts.model, download_bytes=1))
    world.edit(model={"uri": "hf://another/model"}).step()
    world.step()
    assert "coldStartSeconds" not in scaling(world)


@pytest.fixture
def leaving(world, make_ready_pod):
    """Two replicas become one; pods of these names are on their way out, each with what it said last."""

    def make(reports):
        world.edit(replicas=2).run(2).edit(replicas=1).step()
        staying, *pods = (make_ready_pod(name, world.uri) for name in ("stays", *reports))
        for minute, pod in enumerate(pods):
            pod["metadata"]["deletionTimestamp"] = f"2026-01-03T03:{minute:02}:05Z"
        told = {name: report for name, report in reports.items() if report is not None}
        world.given(pods=(staying, *reversed(pods)), reports=told).deployed(ready=1).step()
        return world

    return make


def left(requests):
    return PodReport(Progress(Stage.DRAINING, message=f"{requests} requests left"))


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        (
            {"b": left(3)},
            "1 replica more to go when the last stream ends, by 2026-01-03T03:00:05Z in any case: b (3 requests left)",
        ),
        ({"b": None}, "1 replica more to go when the last stream ends, by 2026-01-03T03:00:05Z in any case: b"),
        # What it said while it served is no longer so.
        ({"b": PodReport(Progress(Stage.READY), 0, 7)}, "by 2026-01-03T03:00:05Z in any case: b"),
        ({"c": left(1), "b": left(2)}, "by 2026-01-03T03:01:05Z in any case: c (1 requests left), b (2 requests left)"),
        (
            dict.fromkeys("abcdefg"),
            "by 2026-01-03T03:06:05Z in any case: a, b, c, d, e and 2 more",
        ),
    ],
)
def test_replicas_that_end_their_streams_are_told(leaving, reports, words):
    """Which pods, what each still has to do, and when it ends in any case."""
    world = leaving(reports)
    assert world.condition("WorkloadReady")["message"].startswith("1 replica ready; ")
    assert world.condition("WorkloadReady")["message"].endswith(words)
    assert world.reason("WorkloadReady") == ("True", "AllReplicasReady")
    assert world.plan().status == world.service["status"]


def test_requests_of_a_replica_on_its_way_out_are_nobodys_queue(leaving):
    world = leaving({"b": PodReport(Progress(Stage.READY), waiting=2, running=7)})
    assert "queue" not in world.service["status"]


def test_who_waits_for_the_place_of_a_leaving_replica_is_told_so(world, make_pod, make_ready_pod):
    """A new pod has no node as long as a former one ends its streams: both are in one message."""
    world.run()
    former = make_ready_pod("former", world.uri)
    former["metadata"]["deletionTimestamp"] = "2026-01-03T03:04:05Z"
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}]
    waiting = make_pod("waits", world.uri, conditions=conditions)
    world.given(pods=(former, waiting), reports={"former": left(2)}).deployed(ready=0, replicas=1).step()
    message = world.condition("Ready")["message"]
    assert world.reason() == ("False", "Unschedulable")
    assert message.startswith("pod waits: no GPU; ")
    assert message.endswith("by 2026-01-03T03:04:05Z in any case: former (2 requests left)")
