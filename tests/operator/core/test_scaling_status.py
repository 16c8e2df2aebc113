"""`kubectl describe` says how many replicas there are to be, why, and what led there."""

import dataclasses

from pagoda_operator.api.status import QueueStatus


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


def test_a_replica_that_ends_its_streams_is_told(world, make_ready_pod):
    world.edit(replicas=2).run(2).edit(replicas=1).step()
    staying, leaving = (make_ready_pod(name, world.uri) for name in ("a", "b"))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    world.given(pods=(staying, leaving)).deployed(ready=1).step()
    message = world.condition("WorkloadReady")["message"]
    assert message == "1 replica ready; 1 replica more to go as soon as the last stream ends"
