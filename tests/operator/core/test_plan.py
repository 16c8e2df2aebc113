"""What is done about a service, from its first minute to its last."""

import dataclasses

import pytest

from pagoda_operator.core.facts import ModelUnreadable
from pagoda_operator.core.plan import is_sound

KINDS = ["ServiceAccount", "PersistentVolumeClaim", "Service", "PodDisruptionBudget", "Deployment"]


def kinds(result):
    return [child["kind"] for child in result.apply]


def test_a_new_service_gets_its_children_in_the_order_in_which_they_need_each_other(world):
    assert kinds(world.step()) == KINDS


def test_a_steady_service_costs_nothing(world):
    world.run()
    result = world.plan()
    assert (result.apply, result.delete, result.requeue_after) == ((), (), None)
    assert result.status == world.service["status"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_was_deleted_by_hand_is_made_again(world, kind):
    world.run()
    children = {key: child for key, child in world.facts.children.items() if key[0] != kind}
    assert kinds(world.given(children=children).step()) == [kind]


def test_a_child_that_was_edited_by_hand_is_repaired(world):
    world.run()
    world.child("Service")["spec"]["ports"][0]["port"] = 8080
    world.child("Deployment")["spec"]["replicas"] = 5
    assert kinds(world.step()) == ["Service", "Deployment"]
    assert world.child("Deployment")["spec"]["replicas"] == 1


def test_what_others_add_to_a_child_is_left(world):
    world.run()
    deployment = world.child("Deployment")
    deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    deployment["metadata"]["labels"]["team"] = "a"
    deployment["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "x"})
    deployment["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    assert world.plan().apply == ()


def test_a_field_that_is_no_longer_wanted_is_taken_back(world):
    """It would pass for something that others added, were it not for the hash."""
    world.edit(priorityClassName="high").run()
    assert kinds(world.edit(priorityClassName=None).step()) == ["Deployment"]
    assert "priorityClassName" not in world.child("Deployment")["spec"]["template"]["spec"]


def test_scaling_writes_the_deployment_s_replicas_and_nothing_else(world):
    world.run()
    result = world.edit(replicas=3).step()
    assert kinds(result) == ["Deployment"]
    assert result.apply[0]["spec"]["replicas"] == 3


def test_a_service_that_is_being_deleted_is_left_alone(world):
    world.run()
    world.service["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    world.given(children={})
    result = world.plan()
    assert (result.apply, result.delete) == ((), ())


def test_a_child_that_is_being_deleted_is_waited_for(world):
    world.run()
    world.child("Service")["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    world.child("Service")["spec"]["ports"] = []
    assert world.plan().apply == ()


def test_autoscaling_that_is_removed_takes_its_scaler_with_it(world):
    world.edit(autoscaling={"maxReplicas": 3}).run()
    assert ("HorizontalPodAutoscaler", "smollm2") in world.facts.children
    result = world.edit(autoscaling=None).step()
    assert [(ref.kind, ref.name) for ref in result.delete] == [("HorizontalPodAutoscaler", "smollm2")]


def test_keda_that_comes_replaces_the_hpa_and_back(world):
    world.settings = dataclasses.replace(world.settings, prometheus_address="http://prometheus:9090")
    world.edit(autoscaling={"maxReplicas": 3}).run()
    result = world.given(served=frozenset({"ScaledObject"})).step()
    assert kinds(result) == ["ScaledObject"]
    assert [ref.kind for ref in result.delete] == ["HorizontalPodAutoscaler"]
    result = world.given(served=frozenset()).step()
    assert kinds(result) == ["HorizontalPodAutoscaler"]
    assert [ref.kind for ref in result.delete] == ["ScaledObject"]


def test_keda_without_a_prometheus_is_not_used_and_the_condition_says_so(world):
    world.edit(autoscaling={"maxReplicas": 3}).given(served=frozenset({"ScaledObject"})).step()
    assert ("HorizontalPodAutoscaler", "smollm2") in world.facts.children
    assert "prometheusAddress" in world.condition("ScalingReady")["message"]


def test_local_mode_has_no_scaler(world):
    world.settings = dataclasses.replace(world.settings, local=True)
    assert kinds(world.edit(autoscaling={"maxReplicas": 3}).step()) == KINDS
    assert world.reason("ScalingReady") == ("False", "LocalMode")


def test_an_object_that_nobody_knows_is_not_deleted(world):
    """Only what this very service controls; a namesake's leftovers have another uid."""
    world.run()
    other = {"metadata": {"uid": "x", "ownerReferences": [{"uid": "u-0", "controller": True}]}}
    world.given(children={**world.facts.children, ("HorizontalPodAutoscaler", "smollm2"): other})
    assert world.plan().delete == ()


# --- models that can't be read, plans that can't be made -------------------------------------------------------------


def test_a_model_that_is_being_read_is_waited_for_without_pods(world):
    assert world.given(model=None).step().apply == ()
    assert is_sound(world.service)
    assert world.reason("Planned") == ("Unknown", "ReadingModel")
    assert world.reason() == ("False", "ReadingModel")


@pytest.mark.parametrize(("permanent", "again"), [(True, False), (False, True)])
def test_a_model_that_can_t_be_read_is_a_condition_and_no_pods(world, permanent, again):
    result = world.given(model=ModelUnreadable("no such repository; check spec.model.uri", permanent)).step()
    assert result.apply == ()
    assert world.reason("Planned") == ("False", "ModelUnreadable")
    assert "no such repository; check spec.model.uri" in world.condition("Ready")["message"]
    assert (result.requeue_after is not None) is again


def test_a_hub_that_is_down_changes_nothing_about_a_service_that_was_planned(world):
    world.run().given(model=ModelUnreadable("the hub does not answer", permanent=False))
    result = world.edit(replicas=2).step()
    assert kinds(result) == ["Deployment"]
    assert world.reason("Planned") == ("True", "Planned")


def test_another_model_is_not_planned_by_what_is_known_of_the_former(world):
    world.run().edit(model={"uri": "pypi://other/model.gguf"}).given(model=None)
    result = world.step()
    assert (result.apply, result.delete) == ((), ())
    status, reason = world.reason()
    assert (status, reason) == ("False", "ReadingModel")
    assert "1 replica still answers" in world.condition("Ready")["message"]
    assert world.reason("WorkloadReady") == ("Unknown", "NotPlanned")


def test_a_model_that_fits_nowhere_leaves_what_runs_and_tells_the_arithmetic(world, gpu_node):
    big = dataclasses.replace(world.facts.model, weight_bytes=900 << 30)
    world.run().edit(model={"uri": "hf://big/model"}).given(model=big, nodes=(gpu_node(),))
    result = world.step()
    assert (result.apply, result.delete) == ((), ())
    assert world.reason("Planned") == ("False", "DoesNotFit")
    assert "900.0 GiB weights" in world.condition("Planned")["message"]
    assert "900.0 GiB weights" in world.service["status"]["rejected"][0]
    assert world.service["status"]["plan"]["gpu"] == "cpu", "the plan of what still runs"


def test_a_gpu_pool_that_is_scaled_to_zero_keeps_the_plan(world, gpu_node):
    world.given(nodes=(gpu_node(),)).run()
    assert world.service["status"]["plan"]["gpu"] == "1x L4"
    result = world.given(nodes=()).edit(replicas=0).step()
    assert kinds(result) == ["Deployment"]
    assert world.service["status"]["plan"]["gpu"] == "1x L4"


def test_gpus_that_others_take_do_not_move_a_service(world, gpu_node):
    nodes = (gpu_node(), gpu_node("gpu-2", "NVIDIA-A10", "24576"))
    world.given(nodes=nodes).run()
    assert world.given(requested={"gpu-1": 1}).plan().apply == ()


def test_a_selector_that_leaves_the_class_moves_the_service(world, gpu_node):
    nodes = (gpu_node(), gpu_node("gpu-2", "NVIDIA-A10", "24576"))
    world.given(nodes=nodes).run().edit(nodeSelector={"nvidia.com/gpu.product": "NVIDIA-A10"}).step()
    assert world.service["status"]["plan"]["gpu"] == "1x A10"


def test_what_the_schema_would_refuse_is_a_condition_too(world):
    """A CRD of another version may let pass what this operator can't read."""
    world.run().edit(accelerator="tpu")
    result = world.step()
    assert (result.apply, result.delete) == ((), ())
    assert world.reason() == ("False", "Invalid")
    assert not is_sound(world.service)
    assert 'supported values: "auto", "gpu", "cpu"' in world.condition("Ready")["message"]
    assert world.plan().status == world.service["status"]


# --- foreign objects and refusals ------------------------------------------------------------------------------------


def test_a_foreign_object_is_a_conflict_that_is_tried_again(world):
    world.given(conflicts={("Service", "smollm2"): "it was made by 'kubectl'"})
    result = world.step()
    assert result.requeue_after is not None
    assert world.reason() == ("False", "NameConflict")
    message = world.condition("Ready")["message"]
    assert "Service smollm2" in message
    assert "give this service another name" in message


@pytest.mark.parametrize("kind_and_name", [("ServiceAccount", "smollm2"), ("PersistentVolumeClaim", "smollm2-models")])
def test_no_pods_use_what_is_not_ours(world, kind_and_name):
    assert "Deployment" not in kinds(world.given(conflicts={kind_and_name: "it is another's"}).step())


def test_a_refusal_of_the_api_server_reaches_the_user_in_its_own_words(world):
    world.given(refused={("Deployment", "smollm2"): "exceeded quota: gpus"}).step()
    assert world.reason() == ("False", "Refused")
    assert "exceeded quota: gpus" in world.condition("Ready")["message"]


# --- the cache -------------------------------------------------------------------------------------------------------

CLAIM = ("PersistentVolumeClaim", "smollm2-models")


def test_what_can_t_change_in_a_claim_is_not_asked_for_and_told(world):
    world.run()
    result = world.edit(cache={"storageClassName": "fast", "accessMode": "ReadWriteMany", "size": "512Mi"}).step()
    assert kinds(result) == ["Deployment"], "which may spread now"
    world.deployed(ready=1).step()
    message = world.condition("ModelCached")["message"]
    assert "its size is 1Gi" in message
    assert "delete the claim and the pods" in message
    assert world.plan().apply == ()


def test_a_claim_grows(world):
    result = world.run().edit(cache={"size": "20Gi"}).step()
    (claim,) = result.apply
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_the_class_that_an_api_server_fills_in_is_no_reason_to_write(world):
    """Nor to ask for it, until the claim is written for a reason; and then once."""
    world.run()
    world.facts.children[CLAIM]["spec"]["storageClassName"] = "default"
    assert world.plan().apply == ()
    (claim,) = world.edit(cache={"size": "20Gi"}).step().apply
    assert claim["spec"]["storageClassName"] == "default"
    assert world.plan().apply == ()


def test_a_claim_that_may_not_grow_is_not_asked_again_and_the_service_goes_on(world):
    world.run().edit(cache={"size": "20Gi"})
    world.given(refused={CLAIM: "only dynamically provisioned pvc can be resized"})
    result = world.step()
    assert result.apply == ()
    assert world.reason() == ("True", "Serving")
    assert "its size is 1Gi" in world.condition("ModelCached")["message"]


def test_a_cache_is_retained_by_having_no_owner(world):
    world.run()
    result = world.edit(cache={"retain": True}).step()
    (claim,) = result.apply
    assert "ownerReferences" not in claim["metadata"]
    assert world.plan().apply == ()


def test_a_cache_that_was_retained_is_used_by_the_next_service_of_that_name(world):
    world.edit(cache={"retain": True}).run()
    claim = world.facts.children[CLAIM]
    world.service["metadata"]["uid"] = "u-2"
    del world.service["status"]
    result = world.given(children={CLAIM: claim}, pods=()).step()
    assert kinds(result) == ["ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"]
