"""Whole roll-outs, with the Deployment's controller, a scheduler and kubelets played: whatever the cluster, the last
replica that serves is never lost unasked, and a roll-out ends or says what it waits for."""

import copy
import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pagoda_operator.local.rollout import Rollout
from pagoda_operator.planner.gpus import gpus_asked
from pagoda_operator.planner.nodes import Node

TICK = timedelta(seconds=5)
LOADING, ENDING = 2, 4
"""Ticks until a pod that has a node is ready, and until one that was deleted is gone."""
ENOUGH = 90
PRODUCT = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}


@dataclass
class Machines:
    """Nodes' GPUs, less what others hold; `hidden` is what they hold without the operator's knowledge."""

    gpus: tuple[int, ...]
    held: int
    hidden: int
    one_node: bool

    def objects(self):
        return tuple(
            Node.of(
                {
                    "metadata": {"name": f"n{i}", "labels": PRODUCT},
                    "status": {"allocatable": {"nvidia.com/gpu": str(count)}},
                }
            )
            for i, count in enumerate(self.gpus)
        )

    def schedule(self, pods):
        """Give each pod without a node one, or the scheduler's refusal."""
        for pod in pods:
            if "nodeName" in pod["spec"] or "deletionTimestamp" in pod["metadata"]:
                continue
            hosts = {other["spec"]["nodeName"] for other in pods if "nodeName" in other["spec"]}
            fitting = [name for name, free in self._free(pods).items() if free >= gpus_asked(pod["spec"])]
            if self.one_node and hosts:
                fitting = [name for name in fitting if name in hosts]
            if fitting:
                pod["spec"]["nodeName"], pod["status"] = fitting[0], {}
            else:
                refusal = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
                pod["status"] = {"conditions": [refusal]}

    def _free(self, pods):
        free = {f"n{i}": count for i, count in enumerate(self.gpus)}
        free["n0"] -= self.held + self.hidden
        for pod in pods:
            if "nodeName" in pod["spec"]:
                free[pod["spec"]["nodeName"]] -= gpus_asked(pod["spec"])
        return free


@dataclass
class Play:
    """A service on machines, tick by tick. `fewest` is the least that ever served since it all ran."""

    world: object
    machines: Machines
    pods: list = field(default_factory=list)
    ages: dict = field(default_factory=dict)
    names: int = 0
    fewest: int | None = None
    writes: int = 0

    def tick(self):
        now = self.world.facts.now
        result = self.world.given(pods=tuple(copy.deepcopy(self.pods))).step()
        self.writes += len(result.apply)
        self.world.given(now=now + TICK)
        self._deploy(now)
        self.machines.schedule(self.pods)
        self._run()
        self._tell()

    def settle(self):
        """To the end, and a little longer."""
        self.tick()
        for _ in range(ENOUGH):
            if self.done:
                break
            self.tick()
        self.tick()
        self.tick()

    @property
    def ready(self):
        return sum(1 for pod in self.pods if self._serves(pod))

    @property
    def done(self):
        rollout = Rollout.of(self.world.child("Deployment"), self.pods)
        return not rollout.old and len(self.pods) == self.ready == rollout.wanted

    def _deploy(self, now):
        rollout = Rollout.of(self.world.child("Deployment"), self.pods)
        step = rollout.step()
        for pod in step.delete:
            pod["metadata"]["deletionTimestamp"] = now.isoformat()
            self.ages[pod["metadata"]["name"]] = 0
        for _ in range(step.create):
            pod = copy.deepcopy(rollout.pod(""))
            del pod["spec"]["nodeName"]
            self.names += 1
            pod["metadata"] |= {"name": f"p{self.names}", "creationTimestamp": now.isoformat()}
            pod["status"] = {}
            self.pods.append(pod)

    def _run(self):
        for pod in list(self.pods):
            name, leaving = pod["metadata"]["name"], "deletionTimestamp" in pod["metadata"]
            if "nodeName" not in pod["spec"]:
                if leaving:
                    self.pods.remove(pod)
                continue
            self.ages[name] = self.ages.get(name, 0) + 1
            if leaving and self.ages[name] >= ENDING:
                self.pods.remove(pod)
            elif not leaving and self.ages[name] >= LOADING:
                pod["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
        if self.fewest is not None:
            self.fewest = min(self.fewest, self.ready)

    def _tell(self):
        deployment = self.world.child("Deployment")
        deployment["status"] = Rollout.of(deployment, self.pods).status("2026-01-02T03:04:05Z")

    def _serves(self, pod):
        conditions = pod["status"].get("conditions", [])
        return "deletionTimestamp" not in pod["metadata"] and any(c["type"] == "Ready" for c in conditions)


def play(world, *, gpus, replicas, sizes, held=0, hidden=0, one_node=False, downtime=False):
    """All replicas serve with the first size; then the spec asks for the second one."""
    world = copy.deepcopy(world)
    machines = Machines(tuple(gpus), held, hidden, one_node)
    model = dataclasses.replace(world.facts.model, num_attention_heads=8, num_kv_heads=2)
    world.given(nodes=machines.objects(), requested={"n0": held}, model=model)
    mode = "ReadWriteOnce" if one_node else "ReadWriteMany"
    world.edit(replicas=replicas, parallelism={"tensor": sizes[0]}, cache={"accessMode": mode})
    world.edit(rollout={"allowDowntime": downtime})
    result = Play(world, machines)
    for _ in range(6):
        result.tick()
    assume(result.done)
    result.fewest, result.writes = replicas, 0
    world.edit(parallelism={"tensor": sizes[1]}, engine={"maxNumSeqs": 9})
    result.settle()
    return result


@given(
    gpus=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    replicas=st.integers(1, 4),
    sizes=st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 2])),
    held=st.integers(0, 2),
    hidden=st.integers(0, 1),
    one_node=st.booleans(),
    downtime=st.booleans(),
)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_a_roll_out_ends_or_says_what_it_waits_for(world, gpus, replicas, sizes, held, hidden, one_node, downtime):
    held = min(held, gpus[0] - hidden)
    assume(held >= 0 and max(sizes) <= max(gpus))
    found = play(
        world,
        gpus=gpus,
        replicas=replicas,
        sizes=sizes,
        held=held,
        hidden=hidden,
        one_node=one_node,
        downtime=downtime,
    )
    if not downtime:
        assert found.fewest >= 1, "the last that serves was given up"
    if not found.done:
        assert found.world.reason("WorkloadReady")[1] in ("RolloutBlocked", "Unschedulable")
    assert found.writes <= 4, "the template, the bounds once or twice, and the bounds of the next time"
    assert found.world.plan().apply == ()


@given(replicas=st.integers(2, 4), spare=st.integers(0, 2), hidden=st.booleans(), one_node=st.booleans())
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_two_or_more_replicas_are_always_replaced_and_all_but_one_serve(world, replicas, spare, hidden, one_node):
    """On GPUs for just them or for more, and where others hold GPUs that nobody told us of."""
    found = play(
        world, gpus=[replicas + spare], replicas=replicas, sizes=(1, 1), hidden=min(spare, hidden), one_node=one_node
    )
    assert found.done
    assert found.fewest >= replicas - 1
    if spare > hidden:
        assert found.fewest == replicas
