"""Pods are replaced with one more where there is room, one by one where there is none, and the last that serves is not
given up unasked."""

import copy
import dataclasses
from datetime import timedelta

import pytest

SURGE, ONE_BY_ONE = (1, 0), (0, 1)


def bounds(world):
    found = world.child("Deployment")["spec"]["strategy"]["rollingUpdate"]
    return found["maxSurge"], found["maxUnavailable"]


def gpu_pod(make_ready_pod, name, uri, node="gpu-1", gpus=1):
    pod = make_ready_pod(name, uri)
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    pod["spec"] = {"nodeName": node, "containers": [{"name": "engine", "resources": {"limits": limits}}]}
    return pod


def cordoned(world, which):
    """The world's nodes, of which this one takes no new pod."""
    nodes = list(world.facts.nodes)
    nodes[which] = dataclasses.replace(nodes[which], schedulable=False)
    return tuple(nodes)


@pytest.fixture
def serving(world, gpu_node, make_ready_pod):
    """A service whose replicas, of one GPU each, serve on nodes with so many GPUs."""

    def make(replicas, gpus=(4,), spec=None, held=0):
        nodes = tuple(gpu_node(f"gpu-{i}", count=str(n)) for i, n in enumerate(gpus, 1))
        spec = {"cache": {"accessMode": "ReadWriteMany"}} | (spec or {})
        world.given(nodes=nodes, requested={"gpu-1": held}).edit(replicas=replicas, **spec).run(replicas)
        places = [f"gpu-{i}" for i, n in enumerate(gpus, 1) for _ in range(n)][held:]
        world.given(pods=tuple(gpu_pod(make_ready_pod, f"p-{i}", world.uri, places[i]) for i in range(replicas)))
        world.step()
        assert bounds(world) == SURGE
        assert world.plan().apply == ()
        return world

    return make


def changed(world, **spec):
    """The next spec, written and seen by the Deployment's controller: no new pod yet."""
    ready = world.child("Deployment")["status"]["readyReplicas"]
    world.edit(engine={"maxNumSeqs": 9}, **spec).step()
    return world.deployed(ready=ready, updated=0)


# --- the start -------------------------------------------------------------------------------------------------------


def test_with_a_spare_gpu_a_new_pod_comes_before_an_old_one_goes(serving):
    world = changed(serving(replicas=3))
    assert bounds(world) == SURGE
    world.step()
    assert world.reason("WorkloadReady") == ("False", "RollingOut")
    assert "one by one" not in world.condition("WorkloadReady")["message"]


def test_without_a_spare_gpu_pods_are_replaced_one_by_one_and_it_is_said(serving):
    world = changed(serving(replicas=3, gpus=(3,)))
    assert bounds(world) == ONE_BY_ONE
    world.step()
    assert world.reason("WorkloadReady") == ("False", "RollingOut")
    message = world.condition("Ready")["message"]
    assert "replaced one by one, since no NVIDIA-L4 GPU is free for one more pod" in message


def test_gpus_of_other_tenants_are_not_free(serving):
    world = serving(replicas=3, held=1)
    assert bounds(changed(world)) == ONE_BY_ONE


def test_a_node_that_is_cordoned_has_no_room(serving):
    world = serving(replicas=2, gpus=(2, 2))
    world.given(nodes=cordoned(world, 1))
    assert bounds(changed(world)) == ONE_BY_ONE


def test_gpus_on_several_nodes_do_not_add_up_to_a_pod(serving, make_ready_pod):
    """Two nodes with one free GPU each have no room for a pod of two."""
    world = serving(replicas=1, gpus=(3, 1), spec={"parallelism": {"tensor": 1}})
    world.edit(replicas=2)
    world.given(pods=tuple(gpu_pod(make_ready_pod, f"p-{i}", world.uri) for i in range(2)))
    world.deployed(ready=2).step()
    world.given(model=dataclasses.replace(world.facts.model, num_attention_heads=8, num_kv_heads=2))
    world.edit(parallelism={"tensor": 2}).step()
    assert bounds(world) == SURGE, "one replica of two GPUs is all that there is room for: it may not go below one"
    world.deployed(ready=2, updated=0).step()
    assert world.reason("WorkloadReady") == ("False", "RolloutBlocked")
    assert "no node has 2 NVIDIA-L4 GPUs free" in world.condition("WorkloadReady")["message"]


def test_a_read_write_once_cache_leaves_only_its_own_node(serving):
    world = serving(replicas=2, gpus=(2, 8), spec={"cache": {"accessMode": "ReadWriteOnce"}})
    assert bounds(changed(world)) == ONE_BY_ONE
    world.step()
    assert "the ReadWriteOnce cache is on gpu-1" in world.condition("WorkloadReady")["message"]


def test_cpus_are_not_counted(world):
    world.edit(replicas=2).run(2)
    assert bounds(changed(world)) == SURGE


# --- the last that serves --------------------------------------------------------------------------------------------


def test_a_single_replica_without_a_spare_gpu_waits_and_says_what_helps(serving):
    world = changed(serving(replicas=1, gpus=(1,)))
    assert bounds(world) == SURGE, "the scheduler's queue is where a new pod waits for a GPU"
    world.step()
    assert world.reason() == ("False", "RolloutBlocked")
    message = world.condition("Ready")["message"]
    assert "no NVIDIA-L4 GPU is free for one more pod" in message
    assert "spec.rollout.allowDowntime" in message
    assert "1 replica of the former spec still answers" in message


def test_downtime_that_is_allowed_replaces_it(serving):
    world = changed(serving(replicas=1, gpus=(1,), spec={"rollout": {"allowDowntime": True}}))
    assert bounds(world) == ONE_BY_ONE


def test_downtime_can_be_allowed_while_it_waits(serving):
    world = changed(serving(replicas=1, gpus=(1,)))
    world.step()
    world.edit(rollout={"allowDowntime": True}).step()
    assert bounds(world) == ONE_BY_ONE


def test_a_gpu_that_is_freed_ends_the_waiting(serving, make_ready_pod):
    """The new pod has it from the scheduler; nothing is to be written but the status."""
    world = changed(serving(replicas=1, gpus=(2,), held=1))
    world.step()
    assert world.reason() == ("False", "RolloutBlocked")
    starting = gpu_pod(make_ready_pod, "p-new", world.uri) | {"status": {}}
    world.given(requested={}, pods=(*world.facts.pods, starting)).deployed(ready=1, replicas=2, updated=1)
    result = world.step()
    assert result.apply == ()
    assert world.reason() == ("False", "RollingOut")


def test_what_does_not_serve_is_replaced_at_once(serving):
    """A broken spec is mended without waiting for a GPU that its broken pods hold."""
    world = serving(replicas=2, gpus=(2,))
    world.deployed(ready=0, replicas=2).step()
    world.edit(engine={"maxNumSeqs": 9}).step()
    assert bounds(world) == (0, 2)


def test_no_room_at_all_is_waited_for_even_where_downtime_is_allowed(serving):
    """Ending what serves would win nothing: the only node is cordoned."""
    world = serving(replicas=1, gpus=(1,), spec={"rollout": {"allowDowntime": True}})
    world.given(nodes=cordoned(world, 0))
    assert bounds(changed(world)) == SURGE
    world.step()
    assert world.reason() == ("False", "RolloutBlocked")


def test_a_cache_that_can_t_move_with_its_pods_is_said(world, gpu_node, make_ready_pod):
    """From the CPU to a GPU: the ReadWriteOnce cache keeps new pods on the old node, which has none."""
    world.run()
    world.given(pods=(gpu_pod(make_ready_pod, "p-0", world.uri, "cpu-1", gpus=0),), nodes=(gpu_node(),)).step()
    world.deployed(ready=1, updated=0).step()
    assert world.reason() == ("False", "RolloutBlocked")
    assert "the ReadWriteOnce cache is on cpu-1" in world.condition("Ready")["message"]
    world.edit(rollout={"allowDowntime": True}).step()
    assert bounds(world) == ONE_BY_ONE


# --- on the way ------------------------------------------------------------------------------------------------------


def test_a_roll_out_that_began_one_by_one_ends_so(serving):
    """A GPU that is freed meanwhile, or taken again, does not change the bounds back and forth."""
    world = changed(serving(replicas=3, gpus=(4,), held=1))
    world.given(requested={}).step()
    assert bounds(world) == ONE_BY_ONE
    result = world.deployed(ready=3).step()
    assert bounds(world) == SURGE, "the next one begins anew"
    assert [child["kind"] for child in result.apply] == ["Deployment"]
    assert world.plan().apply == ()


def test_a_gpu_that_is_taken_on_the_way_ends_the_surge(serving):
    world = changed(serving(replicas=3))
    world.given(requested={"gpu-1": 1}).step()
    assert bounds(world) == ONE_BY_ONE


def test_scaling_in_a_cluster_without_a_spare_gpu_writes_replicas_only(serving):
    """Until its controller has seen a write, a Deployment looks like one that rolls out."""
    world = serving(replicas=2, gpus=(3,))
    world.edit(replicas=3).step()
    assert world.plan().apply == ()
    assert bounds(world) == SURGE


def test_pods_on_their_way_out_are_neither_lost_room_nor_a_reason_to_hurry(serving, make_pod):
    """The new pod can't be scheduled while the old one ends its streams: one at a time, all the same."""
    world = changed(serving(replicas=3, gpus=(3,)))
    leaving = copy.deepcopy(world.facts.pods[0])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    unscheduled = make_pod(
        "p-new",
        world.uri,
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}],
    )
    world.given(pods=(leaving, *world.facts.pods[1:], unscheduled)).deployed(ready=2, replicas=3, updated=1)
    result = world.step()
    assert result.apply == ()
    assert world.reason("WorkloadReady") == ("False", "RollingOut")


@pytest.fixture
def unplaced(serving, make_pod):
    """A roll-out of two replicas whose new pod, just made, finds no node, for a reason that nobody can count."""
    world = changed(serving(replicas=2))
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}]
    new = make_pod("p-new", world.uri, conditions=conditions)
    new["metadata"]["creationTimestamp"] = world.facts.now.isoformat()
    return world.given(pods=(*world.facts.pods, new)).deployed(ready=2, replicas=3, updated=1)


def test_what_can_t_be_counted_the_scheduler_tells(unplaced):
    """A pod without a node for two minutes is proof, though replicas may take ten to end: none of them is ending."""
    assert unplaced.child("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 600
    result = unplaced.plan()
    assert result.apply == ()
    assert result.requeue_after == 120
    unplaced.given(now=unplaced.facts.now + timedelta(seconds=120)).step()
    assert bounds(unplaced) == ONE_BY_ONE


def test_a_roll_out_that_is_blocked_waits_for_an_event(serving, make_pod):
    """What is proved need not be asked again every second."""
    world = changed(serving(replicas=1))
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}]
    new = make_pod("p-new", world.uri, conditions=conditions)
    new["metadata"]["creationTimestamp"] = world.facts.now.isoformat()
    world.given(pods=(*world.facts.pods, new)).deployed(ready=1, replicas=2, updated=1)
    result = world.given(now=world.facts.now + timedelta(seconds=120)).step()
    assert world.reason("WorkloadReady") == ("False", "RolloutBlocked")
    assert result.requeue_after is None


def test_what_a_pod_on_its_way_out_holds_is_waited_for(unplaced, make_ready_pod):
    """Until it is gone, or was to be gone; and then until the scheduler had time to use its place."""
    begun, stays = unplaced.facts.now, unplaced.facts.pods
    leaving = gpu_pod(make_ready_pod, "p-former", unplaced.uri)
    leaving["metadata"]["deletionTimestamp"] = (begun + timedelta(seconds=600)).isoformat()
    later = begun + timedelta(seconds=400)
    result = unplaced.given(pods=(*stays, leaving), now=later, last_leaving=later).plan()
    assert (result.apply, result.requeue_after) == ((), 230)
    gone = unplaced.given(pods=stays).plan()
    assert (gone.apply, gone.requeue_after) == ((), 30), "the scheduler has not looked again yet"
    unplaced.given(now=later + timedelta(seconds=30)).step()
    assert bounds(unplaced) == ONE_BY_ONE


def test_a_pod_that_never_ends_is_not_waited_for(unplaced, make_ready_pod):
    """Its node is gone, say: what it holds stays held."""
    leaving = gpu_pod(make_ready_pod, "p-former", unplaced.uri)
    leaving["metadata"]["deletionTimestamp"] = unplaced.facts.now.isoformat()
    unplaced.given(pods=(*unplaced.facts.pods, leaving), now=unplaced.facts.now + timedelta(seconds=120)).step()
    assert bounds(unplaced) == ONE_BY_ONE


def test_bounds_that_were_edited_by_hand_are_repaired(serving):
    world = serving(replicas=2)
    world.child("Deployment")["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": "25%", "maxUnavailable": "25%"}
    world.step()
    assert bounds(world) == SURGE


@pytest.mark.parametrize("lost", ["never placed", "evicted"])
def test_pods_without_a_place_are_replaced_where_there_is_none(world, gpu_node, make_ready_pod, lost):
    """Waiting would leave both pending: nobody loses a place, and what waits for one does so in its new shape."""
    world.given(nodes=(gpu_node(count="1"),), requested={"gpu-1": 1}).edit(replicas=1).run(0)
    pod = gpu_pod(make_ready_pod, "p-0", world.uri)
    if lost == "evicted":
        pod["status"] = {"phase": "Failed", "reason": "Evicted"}
    else:
        del pod["spec"]["nodeName"]
    world.given(pods=(pod,)).step()
    assert bounds(changed(world)) == (0, 1)
    assert world.reason("WorkloadReady")[1] != "RolloutBlocked"
