"""A user never needs the operator's log to learn why a service is not ready."""

import dataclasses

import pytest

from pagoda_engine.contract import Progress, Stage
from pagoda_operator.api.status import Status
from pagoda_operator.core.facts import PodReport


def failing_pod(make_pod, uri, *, code=1, words="", reason="Error", container="containerStatuses", name="engine"):
    terminated = {"exitCode": code, "reason": reason, "message": words, "finishedAt": "2026-01-02T03:10:00Z"}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    return make_pod(
        "p-0", uri, **{container: [{"name": name, "state": state, "lastState": {"terminated": terminated}}]}
    )


def test_a_service_that_serves(world):
    world.run()
    status = world.service["status"]
    assert world.reason() == ("True", "Serving")
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ["Ready", "Planned", "ModelCached", "WorkloadReady", "ScalingReady", "UpToDate"], "True"
    )
    assert (status["ready"], status["replicas"], status["readyReplicas"]) == ("1/1", 1, 1)
    assert status["url"] == "http://smollm2.default/v1"
    assert status["model"] == "smollm2-135m-instruct"
    assert status["selector"] == "pagoda.dev/service=smollm2"
    assert status["cache"]["state"] == "Ready"
    assert status["plan"]["gpu"] == "cpu"


def test_a_status_is_one_that_the_schema_keeps(world):
    world.run()
    assert Status.model_validate(world.service["status"]).to_object() == world.service["status"]


def test_the_url_is_where_the_settings_say(world):
    world.settings = dataclasses.replace(world.settings, service_url="http://127.0.0.1:8000/v1")
    assert world.step().status["url"] == "http://127.0.0.1:8000/v1"


def test_every_part_carries_the_generation_that_it_speaks_of(world):
    world.run().edit(replicas=2).step()
    assert world.service["status"]["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in world.service["status"]["conditions"]} == {2}


def test_a_condition_keeps_its_time_until_its_status_changes(world):
    world.run()
    since = world.condition("Ready")["lastTransitionTime"]
    world.edit(replicas=2).step()
    assert world.condition("Ready")["lastTransitionTime"] == since, "2 are wanted, and 1 still answers"
    world.deployed(ready=0, replicas=2).step()
    assert world.condition("Ready")["lastTransitionTime"] > since


def test_a_status_of_another_version_is_no_obstacle(world, gpu_node):
    """What can't be understood is forgotten, and written anew."""
    world.given(nodes=(gpu_node(),)).run()
    wanted = world.service["status"]
    status = {**wanted, "plan": {"gpu": "x"}, "lastFailure": {"why": "x"}, "modelFacts": {"uri": world.uri}, "new": 1}
    world.service["status"] = status
    assert world.plan().status == wanted


# --- on the way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "reason", "words", "cache"),
    [
        (Progress(Stage.PULLING, 43.6, 436, 1000, 12.4), "PullingModel", "pulling model 44 %", "43%"),
        (Progress(Stage.PULLING), "PullingModel", "pulling model", "Pulling"),
        (Progress(Stage.STARTING), "Starting", "starting", "Pending"),
        (Progress(Stage.LOADING, 80.0), "LoadingWeights", "loading weights 80 %", "Pending"),
        (Progress(Stage.WARMING), "WarmingUp", "warming up", "Pending"),
    ],
)
def test_the_stage_and_how_far_it_is_are_told(world, make_pod, progress, reason, words, cache):
    world.step()
    world.deployed(ready=0, replicas=1).given(pods=(make_pod("p-0", world.uri),), reports={"p-0": PodReport(progress)})
    world.step()
    assert world.reason() == ("False", reason)
    assert words in world.condition("Ready")["message"]
    assert world.service["status"]["cache"]["state"] == cache


def test_the_download_is_counted(world, make_pod):
    world.step()
    report = PodReport(Progress(Stage.PULLING, 43.6, 436, 1000, 12.4))
    world.deployed(ready=0, replicas=1).given(pods=(make_pod("p-0", world.uri),), reports={"p-0": report}).step()
    assert world.service["status"]["cache"] == {
        "state": "43%",
        "bytes": 436,
        "total": 1000,
        "percent": 43,
        "etaSeconds": 12,
    }
    assert world.reason("ModelCached") == ("False", "Pulling")


def test_the_slowest_pod_is_told_of(world, make_pod):
    world.step()
    reports = {
        "p-0": PodReport(Progress(Stage.WARMING)),
        "p-1": PodReport(Progress(Stage.LOADING, 10.0)),
        "p-2": PodReport(Progress(Stage.LOADING, 5.0)),
    }
    world.deployed(ready=0, replicas=3).given(pods=tuple(make_pod(n, world.uri) for n in reports), reports=reports)
    assert "loading weights 5 %" in str(world.step().status)


def test_a_volume_that_is_not_bound_is_told_with_the_fix(world, make_pod):
    world.step()
    world.facts.children["PersistentVolumeClaim", "smollm2-models"]["status"] = {"phase": "Pending"}
    world.deployed(ready=0, replicas=1).given(pods=(make_pod("p-0", world.uri),)).step()
    assert world.reason("ModelCached") == ("False", "VolumePending")
    assert "spec.cache.storageClassName" in world.condition("ModelCached")["message"]


def test_load_is_summed_over_the_pods_that_answered(world, make_ready_pod):
    world.run(replicas=3)
    reports = {
        "p-0": PodReport(waiting=2, running=16),
        "p-1": PodReport(waiting=3, running=5),
        "gone": PodReport(None, 9, 9),
    }
    assert world.given(reports=reports).step().status["queue"] == {"waiting": 5, "running": 21}


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kubelet", "reason", "fix"),
    [
        (1, "Error", "Crashed", ""),
        (2, "Error", "Usage", "check spec.engine.extraArgs"),
        (10, "Error", "ModelNotFound", "check spec.model.uri"),
        (12, "Error", "ModelUnsupported", "choose another model"),
        (14, "Error", "OutOfMemory", "lower spec.engine.maxModelLen"),
        (137, "OOMKilled", "OutOfMemory", "lower spec.engine.maxModelLen"),
        (137, "Error", "Killed", "liveness probe"),
        (77, "Error", "Crashed", ""),
    ],
)
def test_an_engine_that_dies_tells_its_last_words_its_code_and_the_fix(world, make_pod, code, kubelet, reason, fix):
    world.step()
    pod = failing_pod(make_pod, world.uri, code=code, words="pagoda serve: error: no\n", reason=kubelet)
    world.deployed(ready=0, replicas=1).given(pods=(pod,)).step()
    assert world.service["status"]["lastFailure"] == {
        "reason": reason,
        "message": "pagoda serve: error: no",
        "exitCode": code,
        "pod": "p-0",
        "time": "2026-01-02T03:10:00Z",
    }
    assert world.reason() == ("False", reason)
    assert fix in world.condition("Ready")["message"]


def test_a_pod_that_is_over_keeps_no_other_from_being_ready(world, make_pod):
    """A ReplicaSet leaves evicted pods, which are remembered as the last failure and stand in nobody's way."""
    world.step()
    evicted = failing_pod(make_pod, world.uri, code=137)
    evicted["status"]["phase"] = "Failed"
    world.deployed(ready=0, replicas=1).given(pods=(evicted, make_pod("p-1", world.uri))).step()
    assert world.service["status"]["lastFailure"]["pod"] == "p-0"
    assert world.reason("WorkloadReady") == ("False", "Starting")


def test_a_download_that_fails_is_the_cache_s_condition_too(world, make_pod):
    world.step()
    pod = failing_pod(make_pod, world.uri, code=17, words="disk full", container="initContainerStatuses", name="model")
    world.deployed(ready=0, replicas=1).given(pods=(pod,)).step()
    assert world.reason("ModelCached") == ("False", "NoSpace")
    assert "raise spec.cache.size" in world.condition("ModelCached")["message"]


def test_an_engine_without_last_words_still_gets_a_sentence(world, make_pod):
    world.step()
    world.deployed(ready=0, replicas=1).given(pods=(failing_pod(make_pod, world.uri, code=139),)).step()
    assert "ended with exit code 139" in world.service["status"]["lastFailure"]["message"]


def test_an_image_that_can_t_be_pulled_does_not_make_the_status_flicker(world, make_pod):
    """The kubelet alternates between ErrImagePull and ImagePullBackOff, with different words."""

    def waiting(reason, message):
        state = {"waiting": {"reason": reason, "message": message}}
        return (make_pod("p-0", world.uri, containerStatuses=[{"name": "engine", "state": state}]),)

    world.step()
    world.deployed(ready=0, replicas=1).given(pods=waiting("ErrImagePull", "manifest unknown")).step()
    before = world.service["status"]
    assert world.reason() == ("False", "ImagePullFailed")
    assert "manifest unknown; check spec.engine.image" in world.condition("Ready")["message"]
    world.given(pods=waiting("ImagePullBackOff", "Back-off pulling image")).step()
    assert world.service["status"] == before


def test_a_pod_that_finds_no_node_is_told_in_the_scheduler_s_words(world, make_pod):
    world.step()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes available"}
    world.deployed(ready=0, replicas=1).given(pods=(make_pod("p-0", world.uri, conditions=[scheduled]),)).step()
    assert world.reason() == ("False", "Unschedulable")
    assert "0/3 nodes available; free or add such a node" in world.condition("Ready")["message"]
    world.given(pods=()).run()
    assert "lastFailure" not in world.service["status"], "to have waited for a node is no failure"


def test_a_crash_is_remembered_when_its_pod_is_gone(world, make_pod):
    world.step()
    world.deployed(ready=0, replicas=1).given(pods=(failing_pod(make_pod, world.uri, code=15, words="died"),)).step()
    world.run()
    assert world.reason() == ("True", "Serving")
    assert world.service["status"]["lastFailure"]["reason"] == "EngineDied"


def test_a_pod_that_leaves_is_not_a_failure(world, make_pod):
    world.step()
    pod = failing_pod(make_pod, world.uri, code=143)
    pod["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    world.deployed(ready=0, replicas=1).given(pods=(pod,)).step()
    assert "lastFailure" not in world.service["status"]


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_roll_out_is_not_ready_until_no_replica_of_the_former_spec_is_left(world):
    world.run().edit(engine={"maxNumSeqs": 8}).step()
    assert world.reason() == ("False", "RollingOut"), "at once, or `kubectl wait` would pass too early"
    world.step()
    assert world.reason() == ("False", "RollingOut"), "while the Deployment's controller has not seen it"
    world.deployed(ready=1, replicas=2, updated=1).step()
    assert world.reason() == ("False", "RollingOut")
    assert "1 replica of the former spec still answers" in world.condition("Ready")["message"]
    world.deployed(ready=1).step()
    assert world.reason() == ("True", "Serving")


def test_scaling_out_does_not_end_readiness(world):
    world.run().edit(replicas=2).step()
    assert world.reason() == ("True", "Serving")
    world.step()
    assert world.reason() == ("True", "Serving"), "while the Deployment's controller has not seen it"
    world.deployed(ready=1, replicas=2).step()
    assert world.reason() == ("True", "Serving")
    assert world.reason("WorkloadReady") == ("False", "Starting")
    assert world.service["status"]["ready"] == "1/2"


def test_scaling_to_zero_is_wanted_and_says_how_to_come_back(world):
    world.run().edit(replicas=0).step()
    world.deployed(ready=0).given(pods=()).step()
    assert world.reason() == ("False", "ScaledToZero")
    assert "kubectl scale infsvc smollm2 --replicas=1" in world.condition("Ready")["message"]
    assert world.reason("WorkloadReady") == ("True", "ScaledToZero")
    assert world.reason("ModelCached") == ("True", "Cached"), "the cache outlives its pods"
    assert world.service["status"]["cache"]["state"] == "Ready"
