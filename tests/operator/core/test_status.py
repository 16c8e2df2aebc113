"""A user never needs the operator's log to learn why a service is not ready."""

import dataclasses
from datetime import timedelta

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


def test_the_scheduler_s_words_are_told_when_they_are_others_and_not_when_its_numbers_are(world, make_pod):
    """A pod's first refusal is often its claim's, which is bound in a moment; how many nodes there are is no news."""

    def refused(message):
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return world.given(pods=(make_pod("p-0", world.uri, conditions=[scheduled]),)).step().status

    world.step()
    world.deployed(ready=0, replicas=1)
    refused("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims")
    assert "unbound" in world.condition("Ready")["message"]
    before = refused("0/3 nodes are available: 3 Insufficient nvidia.com/gpu")
    assert "3 Insufficient nvidia.com/gpu" in world.condition("Ready")["message"]
    assert refused("0/4 nodes are available: 4 Insufficient nvidia.com/gpu")["lastFailure"] == before["lastFailure"]


def test_a_pod_that_its_node_gave_up_is_told_of_while_no_other_is_there(world, make_pod):
    """Evicted, or refused by the kubelet: no container has said a word."""
    world.step()
    failed = make_pod("p-0", world.uri, phase="Failed", reason="UnexpectedAdmissionError", message="GPU is unhealthy")
    world.deployed(ready=0, replicas=1).given(pods=(failed,)).step()
    assert world.reason() == ("False", "PodFailed")
    assert "pod p-0: UnexpectedAdmissionError: GPU is unhealthy" in world.condition("Ready")["message"]
    world.given(pods=(failed, make_pod("p-1", world.uri))).step()
    assert world.reason() == ("False", "Starting")
    assert world.service["status"]["lastFailure"]["reason"] == "PodFailed"


def test_pods_that_can_t_be_made_are_told_in_the_api_server_s_words(world):
    """A quota, a policy, a priority class that is not there: there is no pod that could tell."""
    world.run().edit(replicas=3).step()
    world.deployed(ready=1)
    quota = "pods is forbidden: exceeded quota: gpus, requested: 1, used: 1, limited: 1"
    world.child("Deployment")["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": quota}
    ]
    world.step()
    assert world.reason() == ("True", "Serving")
    assert world.reason("WorkloadReady") == ("False", "PodsRefused")
    assert quota in world.condition("WorkloadReady")["message"]


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


def test_a_pod_that_should_long_have_gone_is_told_with_the_way_out(world, make_ready_pod):
    """Of a node that is lost nobody ends the pods; the service is looked at again when it is late."""
    world.run()
    lost = make_ready_pod("p-lost", world.uri)
    late = world.facts.now + timedelta(seconds=90)
    lost["metadata"]["deletionTimestamp"] = (late - timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.given(pods=(*world.facts.pods, lost))
    assert 89 <= world.step().requeue_after <= 92
    assert "1 replica more to go" in world.condition("WorkloadReady")["message"]
    world.step()
    assert "kubectl delete pod p-lost --force" in world.condition("WorkloadReady")["message"]
    assert world.plan().requeue_after is None


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


def test_what_the_former_spec_suffered_from_is_not_told_of_the_new_one(world, make_pod):
    """The edit may be what mends it: the new pod's progress is what counts, and what keeps that from being ready."""

    def made_by(uid, pod, second):
        owners = [{"kind": "ReplicaSet", "name": uid, "uid": uid, "controller": True}]
        created = {"ownerReferences": owners, "creationTimestamp": f"2026-01-02T03:00:0{second}Z"}
        return {**pod, "metadata": {**pod["metadata"], **created}}

    world.step()
    old = made_by("former", failing_pod(make_pod, world.uri, code=14, words="CUDA out of memory"), 1)
    world.deployed(ready=0, replicas=1).given(pods=(old,)).step()
    assert world.reason() == ("False", "OutOfMemory")
    world.edit(engine={"maxModelLen": 1024}).step()
    assert world.reason() == ("False", "RollingOut")
    new = made_by("newest", make_pod("p-1", world.uri), 2)
    reports = {"p-1": PodReport(Progress(Stage.LOADING, percent=40))}
    world.deployed(ready=0, replicas=2, updated=1).given(pods=(old, new), reports=reports).step()
    assert world.reason() == ("False", "LoadingWeights")
    assert world.service["status"]["lastFailure"]["reason"] == "OutOfMemory", "which has happened"


def test_where_nothing_can_be_planned_no_replica_is_told_to_come_or_go(world):
    world.run().edit(model={"uri": "hf://org/other"}, replicas=3).given(model=None).step()
    assert world.reason("WorkloadReady") == ("Unknown", "NotPlanned")
    assert world.condition("WorkloadReady")["message"].startswith("1 replica ready, as before")


def test_a_claim_that_is_made_anew_is_empty(world):
    """Without a replica that could tell, what was told of the former claim does not hold for the next one."""
    world.run().edit(replicas=0).step()
    world.deployed(ready=0).given(pods=()).step()
    assert world.reason("ModelCached") == ("True", "Cached")
    claim = world.child("PersistentVolumeClaim", "smollm2-models")
    claim["metadata"]["creationTimestamp"] = "2027-01-01T00:00:00Z"
    world.step()
    assert world.reason("ModelCached") == ("Unknown", "NotStarted")


def test_what_can_t_be_seen_stays_as_it_was_told(world):
    world.run(replicas=1).given(unreadable={"pods": "forbidden"}).step()
    status = world.service["status"]
    assert world.reason() == ("Unknown", "ClusterUnreadable")
    assert (status["ready"], status["replicas"], status["readyReplicas"]) == ("1/1", 1, 1)


def test_scaling_out_while_it_starts_is_no_roll_out(world, make_pod):
    """Also before the Deployment's controller has seen the number."""
    world.step()
    world.deployed(ready=0, replicas=1).given(pods=(make_pod("p-0", world.uri),)).step()
    world.edit(replicas=2).step()
    assert world.reason("WorkloadReady") == ("False", "Starting")


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
